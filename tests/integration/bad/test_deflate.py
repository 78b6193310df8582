"""C1-C6: compressed messages that are too much, not agreed on, or broken."""

from __future__ import annotations

import functools
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from hubbub.core.limits import FrameLimits
from tests.core.wire import frame
from tests.integration.bad.conftest import Target
from tests.serving import RawClient

SIZE = FrameLimits().message_size
OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate")]
ZERO = bytes(4)
TEXT, PING = 1, 9
FIN, RSV1 = 0x80, 0x40

MEBIBYTE = 1024


def deflate(data: bytes, end: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """Compress one message, as RFC 7692 section 7.2.1 has it."""
    stream = zlib.compressobj(9, wbits=-15)
    return (stream.compress(data) + stream.flush(end)).removesuffix(b"\x00\x00\xff\xff")


@functools.cache
def bomb() -> bytes:
    """What becomes a thousand times as large: 60 MB in less than the limit."""
    data = deflate(bytes(60_000_000))
    assert len(data) < SIZE
    return data


BOMBS: dict[str, Callable[[], bytes]] = {
    "one frame": lambda: frame(FIN | RSV1 | TEXT, bomb(), mask=ZERO),
    "of final blocks": lambda: frame(FIN | RSV1 | TEXT, deflate(bytes(20_000), zlib.Z_FINISH) * 15, mask=ZERO),
    "one byte over": lambda: frame(FIN | RSV1 | TEXT, deflate(b"x" * (SIZE + 1)), mask=ZERO),
    "in parts": lambda: frame(RSV1 | TEXT, bomb()[:30_000], mask=ZERO) + frame(FIN, bomb()[30_000:], mask=ZERO),
    "in many parts": lambda: (
        b"".join(
            frame(RSV1 | TEXT if at == 0 else 0, bomb()[at : at + 1000], mask=ZERO) for at in range(0, 50_000, 1000)
        )
        + frame(FIN, bomb()[50_000:], mask=ZERO)
    ),
}

CORRUPT = {
    "no deflate at all": b"\xff\xff\xff\xff",
    "block of the reserved kind": b"\x07",
    "distance before the start": b"\x63\x00\x42\x00\x00",
    "stored block with a wrong length": b"\x00\x05\x00\x00\x00hello",
    "cut in a stored block": b"\x00\x05\x00\xfa\xffhel",
    "cut in a block": deflate(b"a rather long text that does not repeat itself")[:-9],
    "last bytes missing": deflate(b"hello")[:-2],
    "not UTF-8": deflate(b"caf\xe9"),
}


@asynccontextmanager
async def joined(target: Target) -> AsyncIterator[RawClient]:
    """A client that may compress."""
    async with RawClient.join(target, "/deflate", headers=OFFER) as client:
        assert client.answer.header("sec-websocket-extensions") is not None
        yield client


async def test_a_compressed_message_is_understood(target: Target) -> None:
    async with joined(target) as client:
        client.send_frame(TEXT, deflate(b'{"type":"echo","payload":"hello"}'), rsv=4)
        assert await client.recv_json("echo_response") == "hello"


@pytest.mark.parametrize("user", [None, "ann"], ids=["C1 anonymous", "C2 signed in"])
@pytest.mark.parametrize("build", BOMBS.values(), ids=BOMBS)
async def test_c1_to_c3_a_bomb_closes_with_1009_and_takes_no_memory(
    target: Target, build: Callable[[], bytes], user: str | None
) -> None:
    data = build()

    async def attack() -> None:
        async with joined(target) as client:
            if user is not None:
                await client.ask("sign_in", user)
            client.write(data)
            await client.expect_close(1009)

    await attack()  # what a first time of anything takes is no peak
    target.forget_peak()
    before = target.memory()
    await attack()
    assert target.memory("VmHWM") - before <= SIZE // 1024 + MEBIBYTE


@pytest.mark.parametrize("path", ["/ws", "/deflate"])
async def test_c4_a_compressed_frame_that_was_not_agreed_on_closes_with_1002(target: Target, path: str) -> None:
    async with RawClient.join(target, path, headers=OFFER if path == "/ws" else ()) as client:
        assert client.answer.header("sec-websocket-extensions") is None
        client.send_frame(TEXT, deflate(b'{"type":"ping"}'), rsv=4)
        await client.expect_close(1002)


@pytest.mark.parametrize(
    "data",
    [
        frame(RSV1 | TEXT, b"x") + frame(RSV1, b"y"),
        frame(TEXT, b"x") + frame(FIN | RSV1, b"y"),
        frame(FIN | RSV1 | PING),
    ],
    ids=["part of a compressed message", "part of a plain message", "ping"],
)
async def test_c4_rsv1_where_no_message_starts_closes_with_1002(target: Target, data: bytes) -> None:
    async with joined(target) as client:
        client.write(data)
        await client.expect_close(1002)


@pytest.mark.parametrize("data", CORRUPT.values(), ids=CORRUPT)
async def test_c6_a_corrupt_stream_closes_with_1007(target: Target, data: bytes) -> None:
    async with joined(target) as client:
        client.send_frame(TEXT, data, rsv=4)
        await client.expect_close(1007)
