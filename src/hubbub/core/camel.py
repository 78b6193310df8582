"""snake_case in Python, camelCase on the wire, for every Struct and dataclass.

Rules of this file:
1. A Struct or dataclass goes in camelCase wherever in a payload it is; a `rename` of its own counts instead.
2. Dicts, TypedDicts and pydantic models name their keys themselves: they are sent and read as they are.
3. Out, values are exchanged for twins as they are found. In, a twin type is decoded and turned into the real one.
4. Where nothing differs nothing is done: `to_wire` and `from_wire` give back the value, `twin` the type.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Collection
from functools import cache, reduce
from operator import is_, or_
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from hubbub.errors import UsageError

__all__ = ["from_wire", "to_wire", "twin"]

_PLAIN = frozenset({str, int, float, bool, type(None), bytes, msgspec.Raw})
_SHARED = ("array_like", "forbid_unknown_fields", "frozen", "omit_defaults", "tag", "tag_field")
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset, Union, types.UnionType})
_REQUIRED = object()

# Types whose values never need a look: this is what makes sending most Structs free.
_inert: set[Any] = set(_PLAIN)
_real: dict[type, type] = {}
_building: set[type] = set()


def to_wire(value: Any) -> Any:
    """Give back `value` with a twin in the place of every Struct and dataclass that needs one."""
    kind: Any = type(value)
    if kind in _inert:
        return value
    sending = None if kind is dict or kind is list else _sending(kind)
    if sending is None:
        return _exchange(value, to_wire)
    values = [getattr(value, name) for name in sending.names]
    parts = _changed(values, to_wire)
    return value if parts is values and not sending.differs else sending.twin(*parts)


def from_wire(value: Any) -> Any:
    """Give back what a twin type decoded, with the real type in the place of every twin."""
    kind = _real.get(type(value))
    if kind is not None:
        return kind(**{name: from_wire(getattr(value, name)) for name in value.__struct_fields__})
    parts = _exchange(value, from_wire)
    return parts if isinstance(parts, type(value)) else getattr(value, "_make", type(value))(parts)


def twin(kind: Any) -> Any:
    """The type that reads `kind` in camelCase: `kind` itself where nothing differs.

    Raises:
        UsageError: it cannot have a twin; the message says what to do.
    """
    if not _differs(kind, set()):
        return kind
    if _is_record(kind):
        return _reading(kind)
    kind = getattr(kind, "__value__", kind)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is None or _is_record(origin):
        name = getattr(kind, "__name__", kind)
        raise UsageError(f'{name} has other names on the wire: declare the Structs in it with rename="camel".')
    if origin is Annotated:
        return Annotated[(twin(parts[0]), *parts[1:])]
    wires = tuple(map(twin, parts))
    return reduce(or_, wires) if origin in (Union, types.UnionType) else origin[wires]


class _Sending(NamedTuple):
    """How one Struct or dataclass is sent: by a twin made of the values of `names`, if any of it differs."""

    names: tuple[str, ...]
    twin: Any
    differs: bool


@cache
def _sending(kind: Any) -> _Sending | None:
    if not _is_record(kind):
        return None
    if _is_inert(kind, frozenset()):
        _inert.add(kind)
    names, own, wires = _names(kind)
    given = getattr(kind, "__struct_defaults__", ())
    # Defaults matter where the Struct leaves them out; a field without one gets a default that no value is.
    defaults = [_REQUIRED] * (len(names) - len(given)) + [_REQUIRED if d is msgspec.NODEFAULT else d for d in given]
    fields = [(name, Any, _field(default)) for name, default in zip(names, defaults, strict=True)]
    return _Sending(names, _build(kind, fields), wires != own)


@cache
def _reading(kind: Any) -> Any:
    if kind in _building:
        raise UsageError(f'{kind.__name__} contains itself: declare it with rename="camel".')
    _building.add(kind)
    try:
        hints = get_type_hints(kind, include_extras=True)
        own = msgspec.inspect.type_info(kind).fields  # type: ignore[attr-defined]  # every record has fields
        fields = [
            (field.name, twin(hints[field.name]), _field(_default(field), field.default_factory)) for field in own
        ]
    finally:
        _building.discard(kind)
    wire = _build(kind, fields, kw_only=True)
    _real[wire] = kind
    return wire


def _build(kind: Any, fields: list[tuple[str, Any, Any]], kw_only: bool = False) -> Any:
    config = getattr(kind, "__struct_config__", None)
    shared = {} if config is None else {name: getattr(config, name) for name in _SHARED}
    names, _, wires = _names(kind)
    rename = dict(zip(names, wires, strict=True))
    return msgspec.defstruct(kind.__name__, fields, rename=rename, kw_only=kw_only, module=kind.__module__, **shared)


def _default(field: Any) -> Any:
    """What msgspec says of a field's default; of UNSET it only says that the field is not required."""
    return field.default if field.required or field.default is not field.default_factory else msgspec.UNSET


def _field(default: Any, factory: Any = msgspec.NODEFAULT) -> Any:
    factory = getattr(default, "factory", factory)  # as msgspec keeps it
    return msgspec.field(default=default) if factory is msgspec.NODEFAULT else msgspec.field(default_factory=factory)


@cache
def _names(kind: Any) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The field names of a Struct or dataclass: in Python, as msgspec alone would write them, and on our wire."""
    if dataclasses.is_dataclass(kind):
        names = own = tuple(field.name for field in dataclasses.fields(kind))
    else:
        names, own = kind.__struct_fields__, kind.__struct_encode_fields__
    if names != own:
        return names, own, own
    return names, own, msgspec.defstruct("Names", names, rename="camel").__struct_encode_fields__


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind))


def _has_hints(kind: Any) -> bool:
    return isinstance(kind, type) and (_is_record(kind) or is_typeddict(kind) or hasattr(kind, "_fields"))


def _differs(kind: Any, seen: set[Any]) -> bool:
    """Whether a Struct or dataclass anywhere in a type has other names on the wire."""
    if not _has_hints(kind) and not hasattr(kind, "__value__"):
        return any(_differs(part, seen) for part in (get_origin(kind), *get_args(kind)) if part is not None)
    if kind in seen:
        return False
    seen.add(kind)
    if _is_record(kind) and _names(kind)[1] != _names(kind)[2]:
        return True
    held = get_type_hints(kind, include_extras=True).values() if _has_hints(kind) else [kind.__value__]
    return any(_differs(part, seen) for part in held)


def _is_inert(kind: Any, seen: frozenset[Any]) -> bool:
    """Whether nothing that a value of this type may hold has other names on the wire; False where nobody can know."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _is_inert(parts[0], seen)
    if origin in _CONTAINERS:
        return all(part is ... or _is_inert(part, seen) for part in parts)
    if not _is_record(kind):
        return kind in _PLAIN or origin is Literal
    _, own, wires = _names(kind)
    held = get_type_hints(kind).values() if kind not in seen else ()
    return own == wires and all(_is_inert(part, seen | {kind}) for part in held)


def _exchange(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change what a container holds: the same one back where nothing is, else a dict or a list."""
    if isinstance(value, dict):
        values = value.values()
        parts = _changed(values, change)
        return value if parts is values else dict(zip(value, parts, strict=True))
    return _changed(value, change) if isinstance(value, (list, tuple, set, frozenset)) else value


def _changed(values: Collection[Any], change: Callable[[Any], Any]) -> Collection[Any]:
    if _PLAIN.issuperset(map(type, values)):
        return values
    parts = [part if type(part) in _PLAIN else change(part) for part in values]
    return values if all(map(is_, parts, values)) else parts
