"""The queue of a server."""

from __future__ import annotations

from sage_nb.remote.waiting import Queue


class Job:
    """Counts how often it is looked at."""

    looks = 0

    def __eq__(self, other: object) -> bool:
        Job.looks += 1
        return self is other

    def __hash__(self) -> int:
        Job.looks += 1
        return id(self)


def test_what_waits_has_its_place_and_leaves_in_order() -> None:
    queue = Queue[str]()
    for one in "abcd":
        queue.append(one)
    assert [queue.place(one) for one in "abcde"] == [1, 2, 3, 4, None]
    queue.remove("b")
    assert queue.pop() == "a"
    assert [queue.place(one) for one in "abcd"] == [None, None, 1, 2]
    queue.append("a")
    assert ([*queue], len(queue), "b" in queue, queue.place("a")) == (["c", "d", "a"], 3, False, 3)
    queue.clear()
    assert (len(queue), queue.place("a")) == (0, None)


def test_the_places_of_thousands_are_known_without_going_through_all_for_each() -> None:
    queue, jobs = Queue[Job](), [Job() for _ in range(5000)]
    for one in jobs:
        queue.append(one)
    Job.looks = 0
    assert [queue.place(one) for one in jobs] == [*range(1, 5001)]
    assert Job.looks < 10 * len(jobs)
