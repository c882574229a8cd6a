"""Those who look at the list of jobs: they get it at once, and again whenever it has changed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sage_nb import JobManagerClient, JobManagerServer
from sage_nb.engine.dispatcher import ENDED
from tests.remote.raw import ask, pipeline
from tests.remote.test_bad_watchers import Watcher, watcher

QUIET = 0.5


async def listed(one: Watcher) -> list[dict[str, Any]]:
    """The jobs in the next list."""
    found: list[dict[str, Any]] = (await one.hear_until("jobs"))["jobs"]
    return found


def test_the_list_comes_at_once_and_with_every_change(server: JobManagerServer) -> None:
    client = JobManagerClient(port=server.port)

    async def run() -> None:
        async with watcher(server, "?format=json") as one:
            await one.say(op="list")
            first = await listed(one)
            told = [{**job, "runtime": 0} for job in ask(server, "GET", "/v1/jobs").json]
            assert [{**job, "runtime": 0} for job in first] == told
            uuid = await asyncio.to_thread(client.submit_job, pipeline(server))
            seen = []
            while not seen or seen[-1] not in ENDED:
                jobs = {job["uuid"]: job for job in await listed(one)}
                if uuid in jobs:
                    seen.append(jobs[uuid]["status"])
            assert seen[-1] == "completed"
            await asyncio.to_thread(client.delete_job, uuid)
            while uuid in {job["uuid"] for job in await listed(one)}:
                pass

    asyncio.run(run())


def test_many_changes_are_told_four_times_a_second_and_none_while_nothing_changes(server: JobManagerServer) -> None:
    client = JobManagerClient(port=server.port)

    async def run() -> None:
        async with watcher(server, "?format=json") as one:
            await one.say(op="list")
            await one.say(op="list")  # once is enough
            await listed(one)
            began = time.monotonic()
            uuids = [await asyncio.to_thread(client.submit_job, pipeline(server)) for _ in range(6)]
            lists = 0
            while True:
                lists += 1
                jobs = {job["uuid"]: job["status"] for job in await listed(one)}
                if all(jobs.get(uuid) == "completed" for uuid in uuids):
                    break
            assert lists <= 1 + (time.monotonic() - began) / 0.25
            for _ in uuids:  # their processes may still be ending
                try:
                    async with asyncio.timeout(QUIET):
                        await listed(one)
                except TimeoutError:
                    return
            raise AssertionError("lists come, and nothing has changed")

    asyncio.run(run())
