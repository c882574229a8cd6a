"""Code of the user's own: each job has its own, and what comes back is of the classes that the caller has."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from sage_nb import JobManagerServer
from tests.support import Script

CLIENT = """
import os, sys
os.chdir({folder!r})
sys.path.insert(0, {folder!r})
import helper
from sage_nb import RemoteEnvironment

def use(x):
    import helper
    return helper.VERSION, helper.scale(x), helper.__name__

env = RemoteEnvironment("versions", port={port})
env.from_collection([1, 2]).map(use).map(lambda found: (*found, helper.VERSION)).collect("out")
job = env.submit()
print("submitted", flush=True)
job.wait()
print(list(job.results["out"]), flush=True)
print("done", flush=True)
"""


def test_two_jobs_have_two_versions_of_a_module_beside_their_notebooks(
    server: JobManagerServer, tmp_path: Path
) -> None:
    folders = []
    for version in (1, 2):
        folder = tmp_path / f"notebook{version}"
        folder.mkdir()
        (folder / "helper.py").write_text(f"VERSION = {version}\ndef scale(x):\n    return x * {10**version}\n")
        folders.append(str(folder))
    with (
        Script(CLIENT.format(folder=folders[0], port=server.port)) as one,
        Script(CLIENT.format(folder=folders[1], port=server.port)) as two,
    ):
        one.wait_for("submitted")
        two.wait_for("submitted")
        assert one.wait_for("done") == ["[(1, 10, 'helper', 1), (1, 20, 'helper', 1)]"]
        assert two.wait_for("done") == ["[(2, 100, 'helper', 2), (2, 200, 'helper', 2)]"]


def test_a_module_of_which_nobody_knows_beside_the_server_is_not_taken_for_the_notebooks(
    server: JobManagerServer, tmp_path: Path
) -> None:
    """A later job has the newer text of a module that an earlier one had, too."""
    folder = tmp_path / "notebook"
    folder.mkdir()
    for version in (1, 2):
        (folder / "helper.py").write_text(f"VERSION = {version}\ndef scale(x):\n    return x * {10**version}\n")
        with Script(CLIENT.format(folder=str(folder), port=server.port)) as script:
            assert script.wait_for("done")[-1].startswith(f"[({version}, {10**version}, ")


NOTEBOOK = """
import dataclasses, enum, sys
from sage_nb import RemoteEnvironment

@dataclasses.dataclass
class Reading:
    sensor: str
    value: float
    def doubled(self):
        return Reading(self.sensor, 2 * self.value)

class Kind(enum.Enum):
    COLD = 1
    WARM = 2

class TooHot(Exception):
    def __init__(self, reading):
        super().__init__(f"{{reading.sensor}} is too hot")
        self.reading = reading

def read(n):
    if n == {fails}:
        raise TooHot(Reading("s", n))
    return Reading(f"s{{n}}", n / 2), Kind(1 + n % 2)

env = RemoteEnvironment("readings", port={port})
env.from_collection(range(4)).map(read, on_error={policy!r}, name="read").collect("readings")
job = env.submit()
"""

OWN = """
try:
    job.wait()
except TooHot as error:
    print("failed", type(error) is TooHot, type(error.reading) is Reading, error)
for reading, kind in job.results["readings"]:
    print(type(reading) is Reading, kind is Kind(kind.value), reading == Reading(reading.sensor, reading.value))
for letter in job.dead_letters.get("read", ()):
    print("letter", type(letter.error) is TooHot, letter.error.reading == Reading("s", letter.item))
print("done", flush=True)
"""

WAITING = """
print(job.uuid)
try:
    job.wait()
except TooHot:
    assert job.status == "failed"
print("done", flush=True)
"""

ATTACHING = """
import sys
from sage_nb import attach
job = attach({uuid!r}, port={port})
try:
    job.wait()
except Exception as error:
    reading = error.reading
    print("failed", type(error).__name__, type(error).__module__, error, reading.value, reading.doubled().value)
classes = set()
for reading, kind in job.results["readings"]:
    classes.add(type(reading))
    print(type(reading).__name__, reading.sensor, reading.value, reading.doubled().value, kind.name)
for letter in job.dead_letters.get("read", ()):
    classes.add(type(letter.error.reading))
    print("letter", type(letter.error).__name__, letter.item, letter.error.reading.doubled().value)
print(len(classes))
print("Reading" in vars(sys.modules["__main__"]))
print("done", flush=True)
"""


def notebook(server: JobManagerServer, fails: int, policy: str, rest: str) -> str:
    return NOTEBOOK.format(port=server.port, fails=fails, policy=policy) + textwrap.dedent(rest)


def test_results_are_of_the_callers_own_classes(server: JobManagerServer) -> None:
    with Script(notebook(server, -1, "fail", OWN)) as script:
        assert script.wait_for("done") == ["True True True"] * 4


def test_exceptions_are_of_the_callers_own_classes(server: JobManagerServer) -> None:
    with Script(notebook(server, 2, "fail", OWN)) as script:
        assert script.wait_for("done") == ["failed True True s is too hot"] + ["True True True"] * 2


def test_dead_letters_are_of_the_callers_own_classes(server: JobManagerServer) -> None:
    with Script(notebook(server, 2, "dead_letter", OWN)) as script:
        assert script.wait_for("done") == ["True True True"] * 3 + ["letter True True"]


FOUND = [f"Reading s{n} {n / 2} {float(n)} {'WARM' if n % 2 else 'COLD'}" for n in range(4)]


@pytest.mark.parametrize(
    ("fails", "policy", "found"),
    [
        (-1, "fail", [*FOUND, "1", "False"]),
        (2, "fail", ["failed TooHot __main__ s is too hot 2 4", *FOUND[:2], "1", "False"]),
        (2, "dead_letter", [FOUND[0], FOUND[1], FOUND[3], "letter TooHot 2 4", "1", "False"]),
        (0, "fail", ["failed TooHot __main__ s is too hot 0 0", "0", "False"]),
    ],
    ids=["results", "an exception", "a dead letter", "nothing but an exception"],
)
def test_another_process_that_attaches_has_the_classes_of_the_notebook(
    server: JobManagerServer, fails: int, policy: str, found: list[str]
) -> None:
    with Script(notebook(server, fails, policy, WAITING)) as script:
        (uuid,) = script.wait_for("done")
    with Script(ATTACHING.format(uuid=uuid, port=server.port)) as script:
        assert script.wait_for("done") == found
