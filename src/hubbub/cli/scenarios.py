"""What `hubbub check` tries on a server: eight scenarios, each alone on fresh connections.

A scenario returns one line of detail, or raises `Failed` or `NotOffered` with it. It sees the server only through
the wire, so any server that speaks protocol version 1 can be checked.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from hubbub.cli.peer import Failed, Target, accepted, encode_request
from hubbub.errors import CloseCode

__all__ = ["SCENARIOS"]

RAPID_FIRE = 100
UNLIMITED_PROBE = 1 << 20
LARGEST_PROBE = 16 << 20
NESTED = {"text": "hello", "number": 42, "float": 0.5, "yes": True, "nothing": None, "list": [1, [2, {"three": 3}]]}
SPECIAL = {
    "scripts": "日本語 中文 한국어 العربية עברית हिन्दी Ελληνικά Кириллица",
    "emoji": "🎉 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇪🇺",
    "combining marks": "e\u0301 n\u0303 Z\u0351\u036b\u0343 ﷽",
    "escapes": '"quotes" \\backslash\\ /slash/ \b\f\n\r\t \u0000\u0001\u001f\u007f',
    "markup": "<script>alert('&amp;')</script> ${x} {{y}} %s '; DROP TABLE users; --",
    "separators": "a\u2028b\u2029c\u00a0d\u200be\ufefff\u202eg",
    "edges of UTF-8": "\u007f\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff",
    "empty": "",
}


async def ping(target: Target) -> str:
    """`ping` gives `pong`, and so does a ping frame."""
    async with target.connect() as peer:
        started = time.perf_counter()
        await peer.request("ping", None, reply="pong")
        message = time.perf_counter()
        await peer.ping_frame()
        frame = time.perf_counter()
    return f"message {1e3 * (message - started):.1f} ms, frame {1e3 * (frame - message):.1f} ms"


async def echo(target: Target) -> str:
    """`echo` gives the same payload back."""
    async with target.connect() as peer:
        if await peer.request("echo", NESTED, reply="echo_response") != NESTED:
            raise Failed("the payload came back changed")
    return "nested payload came back unchanged"


async def authentication(target: Target) -> str:
    """`authenticate` gives `authenticated` with the user's id."""
    async with target.connect(sign_in=False) as peer:
        return f"signed in as {await target.sign_in(peer, 'check')}"


async def invalid_type(target: Target) -> str:
    """An unknown type gives `error unknown_type`, and the connection stays."""
    async with target.connect() as peer:
        answer = await peer.answer("check_no_such_type", await peer.send("check_no_such_type"))
        code = (answer.get("payload") or {}).get("code")
        if answer["type"] != "error" or code != "unknown_type":
            raise Failed(f"answered by `{answer['type']}` {code or ''}, not by error unknown_type")
        await peer.request("ping", None, reply="pong")
    return "error unknown_type, and the connection stays"


async def chat(target: Target) -> str:
    """A message from one user reaches another, and the sender learns so."""
    async with target.connect(sign_in=False) as sender, target.connect(sign_in=False) as recipient:
        sender_id = await target.sign_in(sender, "check-sender")
        recipient_id = await target.sign_in(recipient, "check-recipient")
        text = f"hello {recipient_id}"
        asked = {"recipientId": recipient_id, "message": text}
        receipt = await sender.request("chat", asked, reply="chat_received")
        if not (receipt or {}).get("delivered"):
            raise Failed(f"not delivered: {(receipt or {}).get('reason', 'no reason given')}")
        got = await recipient.push("chat", message=text)
    if (got.get("from"), got.get("message")) != (sender_id, text):
        raise Failed(f"arrived changed: from {got.get('from')!r}, message {got.get('message')!r}")
    return f"{sender_id} to {recipient_id}, delivered"


async def rapid_fire(target: Target) -> str:
    """A hundred messages without a pause are all answered, in order."""
    async with target.connect() as peer:
        await peer.request("echo", 0, reply="echo_response")
        started = time.perf_counter()
        ids = [await peer.send("echo", number) for number in range(RAPID_FIRE)]
        answers = [await peer.answer("echo", *ids) for _ in ids]
        rate = RAPID_FIRE / (time.perf_counter() - started)
    for number, answer in enumerate(answers):
        if accepted(answer, "echo", "echo_response") != number:
            raise Failed(f"answer {number + 1} of {RAPID_FIRE} is out of order")
    return f"{RAPID_FIRE} messages in order, {rate:,.0f} a second"


async def large_payload(target: Target) -> str:
    """A message of exactly the limit is answered; one byte more closes with 1009."""
    async with target.connect() as peer:
        limit = peer.welcome.get("maxMessage")
        size = limit if isinstance(limit, int) and limit <= LARGEST_PROBE else UNLIMITED_PROBE
        await peer.send_text(_sized("large", size))
        accepted(await peer.answer("echo", "large"), "echo", "echo_response")
    if size != limit:
        return f"{size:,} bytes pass; the limit, {limit or 'none'}, was not tried"
    async with target.connect() as peer:
        await peer.send_text(_sized("over", size + 1))
        code, _ = await peer.closed()
    if code != CloseCode.MESSAGE_TOO_BIG:
        raise Failed(f"{size + 1:,} bytes closed with {code}, not 1009")
    return f"{size:,} bytes pass, one more closes with 1009"


async def special_characters(target: Target) -> str:
    """Text of every kind comes back unchanged."""
    async with target.connect() as peer:
        for name, text in SPECIAL.items():
            payload = {"text": text, text: name}  # as a value and as a key
            if await peer.request("echo", payload, reply="echo_response") != payload:
                raise Failed(f"came back changed: {name}")
    return f"{', '.join(list(SPECIAL)[:3])} and {len(SPECIAL) - 3} more"


SCENARIOS: dict[str, Callable[[Target], Awaitable[str]]] = {
    "ping / pong": ping,
    "echo": echo,
    "authentication": authentication,
    "invalid type": invalid_type,
    "chat": chat,
    "rapid fire": rapid_fire,
    "large payload": large_payload,
    "unicode and special characters": special_characters,
}
"""The scenarios by the name a person sees, in the order they run."""


def _sized(request_id: str, size: int) -> str:
    return encode_request("echo", "x" * (size - len(encode_request("echo", "", request_id))), request_id)
