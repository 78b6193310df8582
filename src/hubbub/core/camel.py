"""snake_case in Python, camelCase on the wire: a twin type for each Struct or dataclass that needs one.

Rules of this file:
1. A type whose field names hold no underscore, or that has a `rename` of its own, is its own twin.
2. Dicts, TypedDicts and pydantic models name their keys themselves: they are sent and read as they are.
"""

from __future__ import annotations

import dataclasses
import types
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from hubbub.errors import UsageError

__all__ = ["to_wire", "twin"]

_building: set[Any] = set()
_twins: dict[Any, Any] = {}


def to_wire(value: Any) -> Any:
    """Give back `value`, or its twin where its field names differ on the wire."""
    kind: Any = type(value)
    wire = _twins.get(kind)
    if wire is None:
        wire = _twins[kind] = twin(kind)
    return value if wire is kind else msgspec.convert(value, wire, from_attributes=True)


@cache
def twin(kind: Any) -> Any:
    """The type that reads and writes `kind` in camelCase: `kind` itself where nothing differs."""
    origin = get_origin(kind)
    if origin is Annotated:
        return Annotated[(twin(kind.__origin__), *kind.__metadata__)]
    if origin in (Union, types.UnionType):
        return reduce(or_, [twin(part) for part in get_args(kind)])
    if origin is not None:
        return _container(kind, origin)
    if isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind)):
        return _record(kind)
    return kind


def _container(kind: Any, origin: Any) -> Any:
    parts = get_args(kind)
    wires = tuple(twin(part) if isinstance(part, type) or get_origin(part) else part for part in parts)
    return kind if wires == parts else origin[wires]


def _record(kind: Any) -> Any:
    """Build the camelCase twin of a Struct or dataclass."""
    if kind in _building:
        raise UsageError(f'{kind.__name__} contains itself: declare it with rename="camel" as a Struct of its own.')
    _building.add(kind)
    try:
        return _camel(kind)
    finally:
        _building.discard(kind)


def _camel(kind: Any) -> Any:
    hints = get_type_hints(kind, include_extras=True)
    own = list(msgspec.inspect.type_info(kind).fields)  # type: ignore[attr-defined]
    wires = {field.name: twin(hints[field.name]) for field in own if field.name in hints}
    renamed = any(field.encode_name != field.name for field in own)
    if renamed or all("_" not in name.strip("_") and wire is hints[name] for name, wire in wires.items()):
        return kind
    config = getattr(kind, "__struct_config__", None)
    tag = {"tag": config.tag, "tag_field": config.tag_field} if config is not None and config.tag is not None else {}
    return msgspec.defstruct(
        kind.__name__,
        [_field(field, wires[field.name]) for field in own],
        rename="camel",
        omit_defaults=bool(config and config.omit_defaults),
        kw_only=True,
        forbid_unknown_fields=bool(config and config.forbid_unknown_fields),
        **tag,
    )


def _field(field: Any, wire: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.name, wire, msgspec.field(default_factory=field.default_factory)
    return (field.name, wire) if field.required else (field.name, wire, field.default)
