"""Completion of what environments, streams and jobs have, and of the names of results.

IPython asks jedi, which reads our source for seconds before its first answer, and evaluates neither calls nor
properties. So what is typed is followed here by what our methods are annotated to return; nothing of the user's is
called. What cannot be followed is left to the others.
"""

from __future__ import annotations

import inspect
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from sage_nb.engine.letters import Letters
from sage_nb.engine.live import LiveView
from sage_nb.engine.results import Result
from sage_nb.jobs.environment import LocalEnvironment
from sage_nb.jobs.job import Job
from sage_nb.jobs.submitting import SubmittingEnvironment
from sage_nb.pipeline.environment import BaseEnvironment
from sage_nb.pipeline.stream import ConnectedStreams, DataStream, FutureStream, KeyedStream, WindowedStream

__all__ = ["Members"]

_OURS = (BaseEnvironment, DataStream, WindowedStream, Job, Result)
_CLASSES: dict[str, type] = {
    one.__name__: one for one in (DataStream, KeyedStream, ConnectedStreams, FutureStream, WindowedStream, Job)
}
_OF_NAMES: dict[str, type] = {"results": Result, "dead_letters": Letters}
"""What there is by name in a job."""
_KEY = re.compile(r"""(?<![\w.])([A-Za-z_]\w*(?:\.\w+)*)\[\s*(?:(['"])((?:(?!\2).)*))?$""")
_KEY_REACH = 300
"""Characters before the cursor in which a key begins: to look through a long line takes long."""
_SUBMITS = re.compile(r"\s*%%sage_submit\b")
_DEEPEST = 20
_LAYOUT = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What an expression gives: an object of `cls`. `keyed` says whether a stream's items have a key, `by_name` what
    it holds by name."""

    cls: type
    keyed: bool = False
    by_name: type | None = None
    value: object = None
    """The object itself, where it is at hand."""


class Members:
    """Completes in the cells of one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    @context_matcher(identifier="sage_nb members")
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """Names of results after `job.results[`, and methods after a dot; nothing where it is not known what is."""
        lines = context.full_text.split("\n")[: context.cursor_line + 1]
        after = lines[-1][context.cursor_position :]
        lines[-1] = lines[-1][: context.cursor_position]
        if (key := _KEY.search(lines[-1][-_KEY_REACH:])) is not None:
            fragment, found = self._keys(key, after)
        else:
            fragment, found = self._members("\n".join(lines))
        fitting = [one for one in found if one.text.startswith(fragment)]
        return SimpleMatcherResult(completions=fitting, matched_fragment=fragment, suppress=bool(fitting), ordered=True)

    # Names of results

    def _keys(self, key: re.Match[str], after: str) -> tuple[str, Iterable[SimpleCompletion]]:
        """What is typed of a key, and the keys there are, with what closes them."""
        quote, typed = key[2] or "'", key[3] or ""
        end = "" if after.startswith(quote) else quote if after.lstrip().startswith("]") else f"{quote}]"
        names = [name for name in self._names(key[1].split(".")) if repr(name)[1:-1] == name and quote not in name]
        begin = "" if key[2] else quote
        return typed, [SimpleCompletion(text=f"{begin}{name}{end}", type="result") for name in names]

    def _names(self, path: list[str]) -> list[str]:
        """The keys of the mapping of ours that the path leads to."""
        value = self._shell.user_ns.get(path[0])
        for name in path[1:]:
            if not isinstance(value, (Job, SubmittingEnvironment)) or name not in ("job", *_OF_NAMES):
                return []
            value = getattr(value, name)
        is_ours = isinstance(value, LiveView) or (path[-1] in _OF_NAMES and isinstance(value, Mapping))
        return [name for name in value if isinstance(name, str)] if is_ours else []

    # Methods

    def _members(self, text: str) -> tuple[str, Iterable[SimpleCompletion]]:
        """The word behind the last dot, and what may stand there."""
        tokens = _tokens(text)
        fragment = ""
        if tokens and tokens[-1].type == tokenize.NAME:
            fragment = tokens.pop().string
        if not tokens or tokens[-1].string != "." or fragment.startswith("_"):
            return "", ()
        env = _SUBMITS.match(text) is not None
        kind = self._kind(tokens, len(tokens) - 2, "env" if env else None)
        return fragment, () if kind is None else _public(kind)

    def _kind(self, tokens: list[tokenize.TokenInfo], end: int, env: str | None, deep: int = 0) -> _Kind | None:
        """What the expression gives whose last token is number `end`. `env` is the name that the cell's magic binds."""
        found = _chain(tokens, end)
        if found is None or deep > _DEEPEST:
            return None
        begin, steps = found
        kind = self._named(tokens, begin, env, deep, called=steps[:1] == ["()"])
        for n, step in enumerate(steps):
            if kind is None:
                return None
            if step == "[]":
                kind = None if kind.by_name is None else _Kind(kind.by_name)
            elif step != "()":
                kind = _attribute(kind, step, called=steps[n + 1 : n + 2] == ["()"])
        return kind

    def _named(
        self, tokens: list[tokenize.TokenInfo], at: int, env: str | None, deep: int, *, called: bool
    ) -> _Kind | None:
        """What the name is that is token number `at`, or what it gives where it is called: by what this cell gives it,
        or by its value."""
        name = tokens[at].string
        for n in range(at - 1, 0, -1):
            if tokens[n].string == "=" and tokens[n - 1].string == name and (n == 1 or _ends(tokens[n - 2])):
                end = next((m for m in range(n, at) if _ends(tokens[m])), at) - 1
                begins = _chain(tokens, end)
                whole = begins is not None and begins[0] in (n + 1, n + 2)
                return self._kind(tokens, end, env, deep + 1) if whole else None
        if name == env:
            return _Kind(LocalEnvironment)
        value = self._shell.user_ns.get(name)
        if called:
            return _Kind(value) if isinstance(value, type) and issubclass(value, _OURS) else None
        return _Kind(type(value), isinstance(value, KeyedStream), None, value) if isinstance(value, _OURS) else None


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    """Those that say something; up to where they cannot be read."""
    found: list[tokenize.TokenInfo] = []
    with suppress(tokenize.TokenError, SyntaxError):
        found.extend(one for one in tokenize.generate_tokens(StringIO(text).readline) if one.type not in _LAYOUT)
    while found and found[-1].type == tokenize.NEWLINE and not found[-1].string:
        found.pop()
    return found


def _ends(token: tokenize.TokenInfo) -> bool:
    """Whether a statement ends there."""
    return token.type == tokenize.NEWLINE or token.string == ";"


def _chain(tokens: list[tokenize.TokenInfo], end: int) -> tuple[int, list[str]] | None:
    """Where `name.attribute(...)[...]`, whose last token is number `end`, begins, and its steps behind the name:
    `()`, `[]`, or the name of an attribute."""
    steps: list[str] = []
    at = end
    while at >= 0:
        token = tokens[at]
        if token.type == tokenize.NAME:
            if at == 0 or tokens[at - 1].string != ".":
                return at, steps[::-1]
            steps.append(token.string)
            at -= 2
            continue
        begin = _opening(tokens, at)
        if begin is None:
            return None
        before = tokens[begin - 1] if begin else None
        if before is not None and (before.type == tokenize.NAME or before.string in (")", "]")):
            steps.append("()" if token.string == ")" else "[]")
            at = begin - 1
        elif token.string == ")":  # a bracket around an expression
            inner = _chain(tokens, at - 1)
            return None if inner is None or inner[0] != begin + 1 else (inner[0], [*inner[1], *steps[::-1]])
        else:
            return None
    return None


def _opening(tokens: list[tokenize.TokenInfo], at: int) -> int | None:
    """The number of the bracket that the one at `at` closes."""
    depth = 0
    for n in range(at, -1, -1):
        string = tokens[n].string
        depth += (string in (")", "]", "}")) - (string in ("(", "[", "{"))
        if depth == 0:
            return n if string in ("(", "[") else None
    return None


def _attribute(kind: _Kind, name: str, *, called: bool) -> _Kind | None:
    """What an attribute of an object gives, called or not."""
    found = inspect.getattr_static(kind.cls, name, None)
    if isinstance(found, property) and not called:
        if issubclass(kind.cls, Job) and name in _OF_NAMES:
            return _Kind(dict, by_name=_OF_NAMES[name])
        found = found.fget
    elif not (inspect.isfunction(found) and called):
        return None
    said = str(getattr(found, "__annotations__", {}).get("return", "")).removesuffix(" | None")
    if said == "Self":
        return kind
    if said in _CLASSES:
        cls = _CLASSES[said]
        keyed = cls is KeyedStream or (cls is WindowedStream and kind.keyed)
        return _Kind(cls, keyed)
    if said == "Any" and issubclass(kind.cls, (DataStream, WindowedStream)):
        keyed = kind.keyed and name != "map_batches"
        return _Kind(KeyedStream if keyed else DataStream, keyed)
    return None


def _public(kind: _Kind) -> Iterator[SimpleCompletion]:
    for name in dir(kind.cls if kind.value is None else kind.value):
        if not name.startswith("_"):
            found = inspect.getattr_static(kind.cls, name, None)
            yield SimpleCompletion(text=name, type="function" if callable(found) else "property")
