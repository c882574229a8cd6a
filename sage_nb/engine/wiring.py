"""From a plan to tasks and the lanes between them."""

from __future__ import annotations

from collections.abc import Callable

from sage_nb.engine.channels import SHARED, Circle, Inbox, Lane
from sage_nb.engine.order import Order
from sage_nb.engine.stages import Edge, Plan, Stage, circles, is_pool
from sage_nb.engine.task import Attempt, Task

__all__ = ["wire"]


def wire(plan: Plan, attempt: Attempt, make: Callable[[Stage, int, Attempt], Task]) -> tuple[Task, ...]:
    """One task for each instance of each stage, a source's first. `make` gives a task."""
    tasks = {stage.number: [make(stage, i, attempt) for i in range(stage.parallelism)] for stage in plan.stages}
    for stage in plan.stages:
        for edge in stage.inputs:
            _join(edge, stage, tasks[edge.upstream], tasks[edge.downstream])
    for stage in plan.stages:
        if is_pool(stage):
            _share(stage, tasks)
    for numbers in circles(plan):
        _close([task for number in numbers for task in tasks[number]])
    found = [task for stage in plan.stages for task in tasks[stage.number]]
    return tuple(sorted(found, key=lambda task: task.inbox is not None))


def _join(edge: Edge, stage: Stage, above: list[Task], below: list[Task]) -> None:
    pairs = [(u, d) for u in above for d in below]
    if edge.how == "forward":
        pairs = list(zip(above, below, strict=True))
    for u, d in pairs:
        assert d.inbox is not None
        stamped = edge.stamps is not None
        lane = Lane(d.inbox, edge.tag, keyed=edge.keyed or stamped, stamped=stamped, feedback=edge.feedback)
        if edge.how == "rebalance":
            lane.shared, lane.capacity = True, SHARED[0]
        u.lanes[edge.number].append(lane)


def _share(stage: Stage, tasks: dict[int, list[Task]]) -> None:
    """Let the instances of a pool share the items of their one sender, and what comes of it be put in order."""
    edge = stage.inputs[0]
    sender = tasks[edge.upstream][0]
    order = Order(sender.lanes[edge.number], sender, far=stage.place == "actor")
    sender.senders[edge.number] = order
    for task in tasks[stage.number]:
        task.order = order
        for out in stage.outputs:
            for lane in task.lanes[out.number]:
                lane.sequence = []
    for out in stage.outputs:
        for task in tasks[out.downstream]:
            task.order = order
            assert task.inbox is not None
            order.inboxes.append(task.inbox)


def _close(tasks: list[Task]) -> None:
    """Let the tasks of a loop know of each other."""
    circle = Circle()
    inboxes: list[Inbox] = [task.inbox for task in tasks if task.inbox is not None]
    circle.inboxes = inboxes
    for task in tasks:
        for lanes in task.lanes.values():
            for lane in lanes:
                if lane.inbox in inboxes:
                    lane.first = True
                    circle.inside.append(lane)
    for inbox in inboxes:
        inbox.circle = circle
