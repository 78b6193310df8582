"""From a message's type to the function that handles it, and from JSON to the type it wants."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import msgspec

from hubbub.core.camel import from_wire, twin
from hubbub.core.envelope import invalid_payload
from hubbub.errors import ConfigError, RequestError, UsageError

__all__ = ["Handler", "Route", "payload_decoder", "takes"]

Handler = Callable[..., Any]


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
        coroutine = inspect.iscoroutinefunction(function)
        if thread and coroutine:
            raise ConfigError(f"{function.__qualname__} is `async def`: thread=True is for a plain blocking function.")
        call: Handler = function
        decode: Callable[[msgspec.Raw], Any] = _ignore
        if takes(function, "(conn) or (conn, payload)", 1, 2) == 1:
            call = _without_payload(function)
        else:
            decode = _decoder_of(function)
        inline = not (coroutine or thread)
        call = _threaded(call) if thread else call
        return cls(type, function.__qualname__, call, decode, reply or f"{type}_response", auth, inline)


def takes(function: Handler, form: str, least: int, most: int) -> int:
    """How many arguments a hook or handler takes.

    Raises:
        ConfigError: fewer than `least` or more than `most`; the message names the form.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]
    needed = sum(p.default is inspect.Parameter.empty for p in parameters)
    if needed > most or len(parameters) < least:
        raise ConfigError(f"{function.__qualname__} must take {form}, not {inspect.signature(function)}.")
    return min(len(parameters), most)


def payload_decoder(kind: Any) -> Callable[[msgspec.Raw], Any]:
    """Build the function that turns JSON into `kind`; it raises `RequestError` naming the field.

    Raises:
        ConfigError: no JSON can be read as this type.
    """
    if kind is msgspec.Raw:
        return lambda raw: raw
    if hasattr(kind, "model_validate_json"):
        return _model_decoder(kind)
    try:
        wire = twin(kind)
        decode = msgspec.json.Decoder(wire).decode
    except (TypeError, UsageError) as error:
        raise ConfigError(f"{kind!r} cannot be read from JSON: {error}") from None

    def read(raw: msgspec.Raw) -> Any:
        try:
            return decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            if not bytes(raw):
                raise RequestError("invalid_payload", "This type needs a payload.", "payload") from None
            raise invalid_payload(error) from None

    if wire is kind:
        return read
    return lambda raw: from_wire(read(raw))


def _model_decoder(model: Any) -> Callable[[msgspec.Raw], Any]:
    """Read a pydantic model, whose errors have a shape of their own."""

    def read(raw: msgspec.Raw) -> Any:
        try:
            return model.model_validate_json(bytes(raw) or b"null")
        except ValueError as error:
            first = error.errors(include_input=False, include_url=False)[0]  # type: ignore[attr-defined]
            field = ".".join(str(part) for part in first["loc"]) or None
            where = f"payload.{field}" if field else "payload"
            raise RequestError("invalid_payload", f"{where}: {first['msg']}.", field) from None

    return read


def _decoder_of(function: Handler) -> Callable[[msgspec.Raw], Any]:
    try:
        return payload_decoder(_payload_type(function))
    except ConfigError as error:
        raise ConfigError(f"{function.__qualname__}: {error}") from None


def _payload_type(function: Handler) -> Any:
    """The annotation of the second parameter; Any where there is none."""
    name = list(inspect.signature(function).parameters)[1]
    try:
        return get_type_hints(function, localns=_declaring_frame(), include_extras=True).get(name, Any)
    except NameError as error:
        raise ConfigError(f"{function.__qualname__}: annotation of {name!r} is unknown here: {error}.") from None


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
    async def run(*args: Any) -> Any:
        return await asyncio.to_thread(call, *args)

    return run
