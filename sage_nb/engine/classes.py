"""What a class is made of, for one that is sent by value: how to make it bare, and the attributes to set then.

Two steps, since the functions of a class may lead back to it. An Enum and a `msgspec.Struct` are made with their
members and fields, which cannot be added later.
"""

from __future__ import annotations

import enum
import inspect
import sys
from collections.abc import Callable, Mapping
from types import MemberDescriptorType
from typing import Any

from sage_nb.engine import rebuild

__all__ = ["is_called", "reduce_class"]

_SKIPPED = {"__dict__", "__weakref__", "__module__", "__qualname__", "__slots__", "_abc_impl"}


def is_called(obj: Any, module: str) -> bool:
    """Whether `obj` is what its qualified name means in a module."""
    found: Any = sys.modules.get(module)
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def reduce_class(cls: Any, token: str) -> Any:
    """What a pickler needs to send a class."""
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    attributes = {
        name: value
        for name, value in cls.__dict__.items()
        if name not in _SKIPPED and not (isinstance(value, MemberDescriptorType) and value.__objclass__ is cls)
    }
    members: dict[str, dict[str, Any]] = {}
    make: Callable[..., type] = rebuild.make_class
    args: tuple[Any, ...] = (token, type(cls), cls.__name__, cls.__bases__, names)
    if "__slots__" in cls.__dict__:
        names["__slots__"] = cls.__slots__
    if isinstance(cls, enum.EnumMeta):
        members_of: Mapping[str, Any] = cls.__members__
        make, args = rebuild.make_enum, (*args, {name: one.value for name, one in members_of.items()})
        attributes = _of_enum(cls, attributes)
        members = {name: _of_member(one) for name, one in members_of.items()}
    elif hasattr(cls, "__struct_config__"):
        make, args = rebuild.make_struct, (token, cls.__name__, *_of_struct(cls))
        attributes = {name: value for name, value in attributes.items() if not name.startswith("__struct_")}
    is_global = is_called(cls, cls.__module__) and "." not in cls.__qualname__
    return make, args, (token, is_global, attributes, members), None, None, rebuild.fill_class


_ENUM_MACHINERY = {
    "__new__", "__new_member__", "_all_bits_", "_boundary_", "_flag_mask_", "_generate_next_value_",
    "_hashable_values_", "_inverted_", "_member_map_", "_member_names_", "_member_type_", "_new_member_",
    "_singles_mask_", "_unhashable_values_", "_unhashable_values_map_", "_use_args_", "_value2member_map_",
    "_value_repr_",
}  # fmt: skip
_MEMBER_MACHINERY = {"_value_", "_name_", "__objclass__", "_sort_order_"}


def _of_enum(cls: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    skipped = _ENUM_MACHINERY | set(cls.__members__)
    return {name: value for name, value in attributes.items() if name not in skipped}


def _of_member(member: Any) -> dict[str, Any]:
    """What an `__init__` of the user's gave to a member of an Enum."""
    return {name: value for name, value in member.__dict__.items() if name not in _MEMBER_MACHINERY}


_STRUCT_OPTIONS = (
    "frozen", "eq", "order", "array_like", "gc", "repr_omit_defaults", "omit_defaults", "forbid_unknown_fields",
    "weakref", "dict", "cache_hash", "tag", "tag_field",
)  # fmt: skip


def _of_struct(cls: Any) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]:
    """The fields and options of a `msgspec.Struct`, as `rebuild.make_struct` takes them."""
    import msgspec

    own = inspect.get_annotations(cls)
    fields = []
    for one in msgspec.structs.fields(cls):
        if one.name in own:
            given = {"name": one.encode_name, "default": one.default, "default_factory": one.default_factory}
            fields.append((one.name, {key: value for key, value in given.items() if value is not msgspec.NODEFAULT}))
    options = {name: getattr(cls.__struct_config__, name) for name in _STRUCT_OPTIONS}
    parameters = inspect.signature(cls).parameters
    options["kw_only"] = any(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name, _ in fields)
    return fields, {**options, "bases": cls.__bases__, "module": cls.__module__}
