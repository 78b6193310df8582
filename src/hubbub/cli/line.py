"""What a person types to `hubbub connect`, and how what arrives is shown: text in, text out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hubbub.errors import HubbubError

__all__ = ["COMMANDS", "Command", "LineError", "decode", "describe", "encode", "parse_line", "printable"]

COMMANDS = {
    "/ping": "send a ping frame and show the round trip",
    "/raw TEXT": "send TEXT as it is, even if it is no message",
    "/help": "show this",
    "/quit": "close and leave (so does Ctrl-D)",
}
NAMES = {line.split()[0] for line in COMMANDS}
CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {ord("\n"): " ", ord("\t"): " "}


class LineError(HubbubError):
    """The line says nothing we can send; the message shows how to write it."""


@dataclass(frozen=True, slots=True)
class Command:
    """A line that begins with `/`: an order to the client itself."""

    name: str
    argument: str


def parse_line(line: str) -> Command | dict[str, Any]:
    """Read a line as a command, a whole message in JSON, or the shorthand `type {payload}`.

    Raises:
        LineError: it is none of them.
    """
    line = line.strip()
    head, _, rest = line.partition(" ")
    if head.startswith("/"):
        if head not in NAMES:
            raise LineError(f"unknown command {head}; there are {', '.join(sorted(NAMES))}")
        return Command(head, rest)
    if line.startswith("{"):
        message: dict[str, Any] = _parse_json(line, "the message")
        return message
    if not rest.strip():
        return {"type": head}
    return {"type": head, "payload": _parse_json(rest, "the payload")}


def encode(message: dict[str, Any]) -> str:
    """Write a message as it goes over the wire."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def decode(text: str | bytes) -> dict[str, Any] | None:
    """Read what arrived as a message; None if it is none."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and "type" in message else None


def describe(message: dict[str, Any]) -> tuple[str, Any]:
    """Split a message into its type and what else is worth showing."""
    rest = {key: value for key, value in message.items() if key not in ("type", "timestamp") and value is not None}
    return str(message["type"]), rest["payload"] if set(rest) == {"payload"} else rest or None


def printable(text: str) -> str:
    """Put `text` on one line and disarm what would steer the terminal; JSON stays the same JSON."""
    return text.translate(CONTROLS)


def _parse_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LineError(f'{what} is not JSON ({error}); write it like: echo {{"a": 1}}   or: echo "text"') from None
