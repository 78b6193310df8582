"""From a message's type to the function that handles it, and from JSON to the type it wants."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import re
import sys
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any, get_args, get_type_hints

import msgspec

from hubbub.core.camel import from_wire, twin
from hubbub.core.envelope import invalid_payload
from hubbub.errors import ConfigError, RequestError, UsageError

__all__ = ["Handler", "Route", "payload_decoder", "refuse_unawaited", "takes", "underlying"]

Handler = Callable[..., Any]

TAG = re.compile(r"(?<=^Input tag) '.*'(?= found)", re.DOTALL)  # all that pydantic repeats of the input
CHECKS = ("annotated_types", "pydantic")  # whose marks ask for what only pydantic does


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """How messages of one type are handled.

    Args:
        type: the message's type.
        name: the function's, for the log.
        call: the function, given the connection and the payload.
        decode: makes the payload from its JSON; raises `RequestError`.
        reply: the type of the message that carries the return value.
        auth: only for a connection with a user.
        inline: runs at once in the loop; otherwise `call` gives a coroutine.
    """

    type: str
    name: str
    call: Handler
    decode: Callable[[msgspec.Raw], Any]
    reply: str
    auth: bool
    inline: bool

    @classmethod
    def build(cls, type: str, function: Handler, *, reply: str | None, auth: bool, thread: bool) -> Route:
        """Read a handler's signature.

        Raises:
            ConfigError: the signature is not `(conn)` or `(conn, payload)`, or its type cannot be read from JSON.
        """
        name = underlying(function).__qualname__
        coroutine = inspect.iscoroutinefunction(underlying(function))
        if thread and coroutine:
            raise ConfigError(f"{name} is `async def`: thread=True is for a plain blocking function.")
        call: Handler = function
        decode: Callable[[msgspec.Raw], Any] = _ignore
        if takes(function, "(conn) or (conn, payload)", 1, 2) == 1:
            call = _without_payload(function)
        else:
            decode = _decoder_of(function)
        inline = not (coroutine or thread)
        call = _threaded(call) if thread else call
        return cls(type, name, call, decode, reply or f"{type}_response", auth, inline)


def underlying(function: Handler) -> Handler:
    """The function in a partial or in an object that can be called: it has the name, the hints and the `async`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def takes(function: Handler, form: str, least: int, most: int) -> int:
    """How many arguments a hook or handler takes.

    Raises:
        ConfigError: fewer than `least` or more than `most`; the message names the form.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    everything = inspect.signature(function).parameters.values()
    parameters = [p for p in everything if p.kind in kinds]
    needed = sum(p.default is inspect.Parameter.empty for p in parameters)
    foreign = any(_is_injected(p.default) or (p.kind is p.KEYWORD_ONLY and p.default is p.empty) for p in everything)
    if needed > most or len(parameters) < least or foreign:  # FastAPI calls its routes, we call handlers
        raise ConfigError(f"{underlying(function).__qualname__} must take {form}, not {inspect.signature(function)}.")
    inner = underlying(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):  # to call it does nothing
        raise ConfigError(f"{inner.__qualname__} has a `yield`, and nobody would go on with it: use `return`.")
    return min(len(parameters), most)


def refuse_unawaited(result: Any) -> None:
    """Fail where a plain function, as a decorator's may be, gave a coroutine: nobody would ever run it."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(f"{result.__qualname__} was not awaited: the function around it has to be `async def`.")


def payload_decoder(kind: Any) -> Callable[[msgspec.Raw], Any]:
    """Build the function that turns JSON into `kind`; it raises `RequestError` naming the field.

    Raises:
        ConfigError: no JSON can be read as this type.
    """
    if kind is msgspec.Raw:
        return lambda raw: raw
    if kind is object:
        kind = Any
    if hasattr(kind, "model_validate_json"):
        return _model_decoder(kind)
    try:
        _refuse_unread(kind, set())
        wire = twin(kind)
        decode = msgspec.json.Decoder(wire).decode
    except (TypeError, NameError, AttributeError, UsageError) as error:
        raise ConfigError(f"{kind!r} cannot be read from JSON: {error}") from None
    # msgspec takes any class on trust; what it calls custom would fail with the first message.
    if "CustomType(" in repr(msgspec.inspect.type_info(wire)):
        raise ConfigError(f"{kind!r} cannot be read from JSON: use a Struct, a dataclass or a model at the top.")

    def read(raw: msgspec.Raw) -> Any:
        try:
            return decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            if bytes(raw):
                raise invalid_payload(error) from None
        try:
            return decode(b"null")
        except (msgspec.MsgspecError, ValueError):
            raise RequestError("invalid_payload", "This type needs a payload.", "payload") from None

    if wire is kind:
        return read

    def convert(raw: msgspec.Raw) -> Any:
        try:
            return from_wire(read(raw))
        except (ValueError, TypeError) as error:  # the type's own check of its values
            raise (_of_pydantic(error) if hasattr(error, "errors") else invalid_payload(error)) from None

    return convert


def _refuse_unread(kind: Any, seen: set[Any]) -> None:
    """Fail where a type asks for a check that nobody here would make: msgspec skips marks that it does not know."""
    for mark in getattr(kind, "__metadata__", ()):
        if any(type(part).__module__.startswith(CHECKS) for part in getattr(mark, "metadata", [mark])):
            raise UsageError(f"{mark!r} would not be checked: write msgspec.Meta(...), or take a pydantic model.")
    if kind in seen or hasattr(kind, "__pydantic_validator__"):  # which checks its own
        return
    seen.add(kind)
    own = isinstance(kind, type) and hasattr(kind, "__annotations__")
    for part in get_type_hints(kind, include_extras=True).values() if own else get_args(kind):
        if isinstance(part, Hashable):
            _refuse_unread(part, seen)


def _model_decoder(model: Any) -> Callable[[msgspec.Raw], Any]:
    """Read a pydantic model, whose errors have a shape of their own."""

    def read(raw: msgspec.Raw) -> Any:
        try:
            return model.model_validate_json(bytes(raw) or b"null")
        except ValueError as error:
            raise _of_pydantic(error) from None

    return read


def _of_pydantic(error: Any) -> RequestError:
    first = error.errors(include_input=False, include_url=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    return RequestError(
        "invalid_payload", f"payload{path}: {TAG.sub('', first['msg'])}.", path.removeprefix(".") or None
    )


def _decoder_of(function: Handler) -> Callable[[msgspec.Raw], Any]:
    default = list(inspect.signature(function).parameters.values())[1].default
    try:
        read = payload_decoder(_payload_type(function))
    except ConfigError as error:
        raise ConfigError(f"{underlying(function).__qualname__}: {error}") from None
    return read if default is inspect.Parameter.empty else lambda raw: read(raw) if bytes(raw) else default


def _payload_type(function: Handler) -> Any:
    """The annotation of the second parameter; Any where there is none."""
    name, parameter = list(inspect.signature(function).parameters.items())[1]
    if parameter.annotation is inspect.Parameter.empty:
        return Any
    # This one alone: the others may be known to type checkers only.
    alone = types.SimpleNamespace(__annotations__={name: parameter.annotation})
    scope = getattr(underlying(function), "__globals__", {})
    try:
        kind = get_type_hints(alone, globalns=scope, localns=_declaring_frame(), include_extras=True)[name]
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise ConfigError(
            f"{underlying(function).__qualname__}: annotation of {name!r} is unknown here: {error}."
        ) from None
    if any(map(_is_injected, getattr(kind, "__metadata__", ()))):
        raise ConfigError(f"{name!r} would be what the client sends: FastAPI's dependencies are for its routes.")
    return kind


def _is_injected(mark: Any) -> bool:
    """Whether FastAPI would fill the parameter in; here it would be whatever the client sends."""
    return type(mark).__name__ in ("Depends", "Security")


def _declaring_frame() -> Mapping[str, Any]:
    """The names where the handler is declared: a type made inside a function is known nowhere else."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("hubbub."):
        frame = frame.f_back
    return {} if frame is None else frame.f_locals


def _ignore(raw: msgspec.Raw) -> None:
    return None


def _without_payload(function: Handler) -> Handler:
    def call(conn: Any, _: Any) -> Any:
        return function(conn)

    return call


def _threaded(call: Handler) -> Handler:
    def guarded(*args: Any) -> Any:
        try:
            return call(*args)
        except StopIteration as error:  # a future takes none, and would never be done
            raise RuntimeError("a handler raised StopIteration") from error

    async def run(*args: Any) -> Any:
        return await asyncio.to_thread(guarded, *args)

    return run
