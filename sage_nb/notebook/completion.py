"""Completion in the lines of our magics: options, their values, jobs, environments, variables, servers.

A completion is wanted while somebody types, so nothing here waits for a server for longer than a blink: jobs that it
lists later are there at the next key.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from sage_nb.engine.dispatcher import ENDED
from sage_nb.jobs.job import Job
from sage_nb.jobs.submitting import BACKENDS, SubmittingEnvironment
from sage_nb.notebook.known import Known

__all__ = ["Completion", "server_addresses"]

_LINE = re.compile(r"\s*(%%?)(sage_\w+)\s+(.*)", re.DOTALL)
_WORD = re.compile(r"""(?:"[^"]*"?|'[^']*'?|[^\s"'])+""")
_ADDRESS = re.compile(r"(?:https?://)?[\w.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")


class Completion:
    """Completes the lines of the magics of one shell."""

    def __init__(self, shell: Any, known: Known) -> None:
        self._shell = shell
        self._known = known
        self._values: dict[str, Callable[[str], Iterable[SimpleCompletion]]] = {
            "backend": lambda magic: (SimpleCompletion(text=one, type="value") for one in BACKENDS),
            "inputs": lambda magic: self._variables(lambda value: not isinstance(value, type(re))),
            "job": self._jobs,
            "name": lambda magic: self._variables(lambda value: isinstance(value, SubmittingEnvironment)),
            "remote": lambda magic: self._servers(),
            "server": lambda magic: self._servers(),
        }
        """By what a magic calls an argument."""

    @context_matcher(identifier="sage_nb")
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """What may stand where the cursor is; nothing where that is no line of ours."""
        lines = context.full_text.split("\n")
        found = _LINE.fullmatch(lines[context.cursor_line][: context.cursor_position])
        first = next((n for n, line in enumerate(lines) if line.strip()), 0)
        if found is None or (found[1] == "%%" and context.cursor_line != first):
            return SimpleMatcherResult(completions=[], suppress=False)
        kind = "cell" if found[1] == "%%" else "line"
        magic = self._shell.magics_manager.magics[kind].get(found[2])
        parser = getattr(magic, "parser", None)
        if parser is None:
            return SimpleMatcherResult(completions=[], suppress=False)
        words = _WORD.findall(found[3])
        typed = words.pop() if words and not found[3][-1:].isspace() else ""
        fragment, offered = self._offered(parser, found[2], words, typed, in_cell=kind == "cell")
        fitting = [one for one in offered if one.text.startswith(fragment) and one.text != fragment]
        return SimpleMatcherResult(
            completions=_once(fitting), matched_fragment=fragment, suppress=bool(fitting), ordered=True
        )

    def _offered(
        self, parser: argparse.ArgumentParser, magic: str, words: list[str], typed: str, *, in_cell: bool
    ) -> tuple[str, Iterable[SimpleCompletion]]:
        """The part of `typed` that is completed, and what may stand there."""
        options = {name: action for action in parser._actions for name in action.option_strings}
        takes = options.get(words[-1]) if words else None
        if takes is not None and takes.nargs != 0:
            return typed.rpartition(",")[2] if takes.dest == "inputs" else typed, self._of(takes, magic)
        name, equals, value = typed.partition("=")
        if equals and name in options:
            return value, self._of(options[name], magic)
        given = {options[word] for word in words if word in options and word not in ("-i", "--input")}
        names = (one for one, action in options.items() if action not in given)
        further = [SimpleCompletion(text=one, type="option") for one in names if one.startswith(("--", typed or "--"))]
        if typed.startswith("-"):
            return typed, further
        place = sum(
            1
            for before, word in zip(["", *words], words, strict=False)
            if word not in options and (before not in options or options[before].nargs == 0)
        )
        positional = [action for action in parser._actions if not action.option_strings]
        here = positional[place : place + 1]
        if in_cell and here and here[0].dest == "name":  # the name of a job to be
            here = []
        return typed, [*(one for action in here for one in self._of(action, magic)), *further]

    def _of(self, action: argparse.Action, magic: str) -> Iterable[SimpleCompletion]:
        """The values that an argument can have."""
        if action.choices is not None:
            return [SimpleCompletion(text=str(choice), type="value") for choice in action.choices]
        if action.dest in ("port", "at"):
            return [SimpleCompletion(text=str(port), type="port") for port in _ports()]
        values = self._values.get(action.dest)
        return values(magic) if values is not None else ()

    def _variables(self, fits: Callable[[Any], bool]) -> Iterator[SimpleCompletion]:
        hidden = getattr(self._shell, "user_ns_hidden", {})
        for name, value in list(self._shell.user_ns.items()):
            if name[:1] != "_" and name not in hidden and fits(value):
                yield SimpleCompletion(text=name, type="instance")

    def _jobs(self, magic: str) -> Iterator[SimpleCompletion]:
        """Variables, names and ids of jobs, the newest first: to be stopped, those that run; to be attached to, those
        of servers."""
        found = self._known.at_hand()
        if magic == "sage_stop":
            found = [one for one in found if one.info.status not in ENDED]
        if magic == "sage_attach":
            found = [one for one in found if one.where is not None]
        uuids = {one.uuid for one in found}
        yield from self._variables(lambda value: isinstance(value, Job) and value.uuid in uuids)
        for one in found:
            name = one.info.name
            if '"' not in name and name.isprintable():
                yield SimpleCompletion(text=f'"{name}"' if " " in name else name, type=f"job, {one.info.status}")
        for one in found:
            yield SimpleCompletion(text=one.uuid[:8], type=f"job, {one.info.status}")

    def _servers(self) -> Iterator[SimpleCompletion]:
        """The server that the notebook is connected to, those on this machine, variables with an address."""
        if self._known.where is not None:
            yield SimpleCompletion(text=self._known.where, type="server")
        yield from self._variables(lambda value: isinstance(value, str) and _ADDRESS.fullmatch(value) is not None)
        for address in server_addresses():
            yield SimpleCompletion(text=address, type="server")


def server_addresses() -> list[str]:
    """Those of this user's servers on this machine."""
    from sage_nb.remote.access import read_notice

    notices = (read_notice(port) for port in _ports())
    return [f"{notice.host}:{notice.port}" for notice in notices if notice is not None]


def _ports() -> list[int]:
    """Those of the servers on this machine that have left a notice."""
    from sage_nb.remote.access import noticed_ports

    return noticed_ports()


def _once(completions: Iterable[SimpleCompletion]) -> list[SimpleCompletion]:
    return list({one.text: one for one in reversed(list(completions))}.values())[::-1]
