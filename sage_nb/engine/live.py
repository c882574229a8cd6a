"""Mappings that show a job as it is at each look."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import Any

__all__ = ["LiveView"]


class LiveView(Mapping[str, Any]):
    """A mapping as it is at each look; it may be iterated while the job changes it."""

    def __init__(self, read: Callable[[], Mapping[str, Any]]) -> None:
        self._read = read

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._read()))

    def __len__(self) -> int:
        return len(self._read())

    def items(self) -> ItemsView[str, Any]:
        return dict(self._read()).items()

    def values(self) -> ValuesView[Any]:
        return dict(self._read()).values()

    def __contains__(self, key: object) -> bool:
        return key in self._read()

    def __repr__(self) -> str:
        return repr(self._read())

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)
