"""What to say of a method that is not there: which one was meant, by its spelling or by its name elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from sage_nb.pipeline.spelling import nearest

__all__ = ["ENVIRONMENT", "STREAM", "Missing", "missing"]


def _words(**meant: str) -> dict[str, str]:
    """By each of the words that lead to it."""
    return {word: ours for ours, words in meant.items() for word in words.split()}


STREAM = _words(
    collect="to_list to_pandas tolist gather fetch",
    connect="union merge concat unite",
    filter="where query select_where filter_by",
    flatmap="flat_map flatMap explode expand flatten",
    join="cogroup coGroup",
    keyby="groupby group_by groupBy key_by keyBy key_on partition_by",
    map="select apply transform assign starmap with_column map_elements mutate",
    map_async="async_map amap",
    map_batches="batch map_partitions mapPartitions chunk",
    process="stateful_map",
    reduce="fold scan accumulate",
    show="display",
    sink="foreach for_each forEach add_sink sink_to output subscribe",
    take="head limit first",
    to_csv="write_csv",
    to_jsonl="to_json write_json write_jsonl",
    to_parquet="write_parquet",
    window="window_by windowed tumbling sliding",
)
"""The words of pandas, Spark, Flink, Beam, Bytewax and polars, and what streams call it."""

ENVIRONMENT = _words(
    from_batch="from_list from_iterable from_iter parallelize from_items create",
    from_csv="read_csv",
    from_dataframe="from_pandas from_polars from_df",
    from_parquet="read_parquet",
    from_source="add_source from_stream",
    from_text="read_text text_file read_lines",
    register_service="add_service service",
    submit="execute run start launch",
)
"""The same for environments."""


def missing(obj: Any, name: str, hints: Mapping[str, str], words: Mapping[str, str]) -> AttributeError:
    """The error for `obj.name`. `hints` say what to do for names of other classes, `words` what is meant by others.

    Of names that begin with `_`, which copy, pickle and IPython try, it says no more than Python does.
    """
    kind = type(obj).__name__
    if name.startswith("_"):
        return AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=obj)
    hint = hints.get(name) or _question(name, [one for one in dir(obj) if one[0] != "_"], hints, words)
    text = f"{kind} has no {name!r}; {hint}" if hint else f"{kind} has no {name!r}"
    return Missing(text, name=name, obj=None)  # with `obj`, Python would ask once more what was meant


class Missing(AttributeError):
    """Ends at the user's line where IPython shows it, which never hides the last frame by itself."""

    def __reduce__(self) -> Any:
        return AttributeError, self.args

    def _render_traceback_(self) -> list[str]:
        from IPython.core.getipython import get_ipython

        shell = get_ipython()
        assert shell is not None
        shown: list[str] = shell.InteractiveTB.structured_traceback(
            AttributeError, self, _without_last(self.__traceback__)
        )
        return shown


Missing.__name__, Missing.__qualname__, Missing.__module__ = "AttributeError", "AttributeError", "builtins"


def _without_last(tb: TracebackType | None) -> TracebackType | None:
    entries: list[TracebackType] = []
    while tb is not None:
        entries.append(tb)
        tb = tb.tb_next
    found = None
    for one in reversed(entries[:-1]):
        found = TracebackType(found, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return found


def _question(name: str, own: list[str], hints: Mapping[str, str], words: Mapping[str, str]) -> str:
    near = name if name in words else nearest(name, [*own, *hints, *words])
    if near is None:
        return ""
    meant = words.get(near, near)
    return f"did you mean {meant!r}?" if meant in own else f"did you mean {meant!r}? ({hints.get(meant, '')})"
