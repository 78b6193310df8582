"""`hubbub serve --ssl-certfile`: the native door over TLS, from the first byte to the last."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from websockets.asyncio.client import connect

from hubbub.servers import server as server_module
from tests.integration.background import Background, hubbub_serve
from tests.servers.places import certificate, trust
from tests.serving import DEADLINE, RawClient, process

LIMIT = 64 * 1024
HANDSHAKE = 0.5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    """It may log nothing in all of these tests: whatever a client does to TLS is no news."""
    files = certificate()
    arguments = ("--ssl-certfile", files["ssl_certfile"], "--ssl-keyfile", files["ssl_keyfile"])
    log = tmp_path_factory.mktemp("tls") / "serve.log"
    with hubbub_serve(log, *arguments, TLS_HANDSHAKE=str(HANDSHAKE)) as found:
        yield found
        assert found.said.endswith("Stop with Ctrl+C\n")


def text(size: int) -> str:
    """An echo of this many bytes."""
    empty = json.dumps({"type": "echo", "payload": ""})
    return json.dumps({"type": "echo", "payload": "x" * (size - len(empty))})


async def test_a_connection_is_a_secure_one(server: Background) -> None:
    async with RawClient.join(server, ssl=trust()) as client:
        assert (await client.ask("echo", {"a": 1}))["payload"] == {"a": 1}
        you = (await client.ask("me"))["payload"]
        assert (you["scheme"], you["client"]) == ("wss", "127.0.0.1")
        await client.leave()


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT], ids=["one byte under the limit", "the limit"])
async def test_a_big_message(server: Background, size: int) -> None:
    async with RawClient.join(server, ssl=trust()) as client:
        sent = text(size)
        assert len(sent) == size
        client.send_text(sent)
        assert await client.recv_json("echo_response") == json.loads(sent)["payload"]
        await client.leave()


@pytest.mark.parametrize("more", [0, 4_000_000], ids=["and waits", "and talks on"])
async def test_whoever_sends_too_much_is_told(server: Background, more: int) -> None:
    """TLS cannot be half closed: what still comes must not become a reset that overtakes the close frame."""
    async with RawClient.join(server, ssl=trust()) as client:
        client.send_text(text(LIMIT + 1))
        client.write(bytes(more))
        assert (await client.recv_close()).code == 1009


async def test_a_slow_reader_keeps_nobody_waiting(server: Background) -> None:
    async with RawClient.join(server, ssl=trust()) as slow, RawClient.join(server, ssl=trust()) as other:
        slow.send_json("fill", 60_000)
        for number in range(20):
            assert (await other.ask("echo", number))["payload"] == number
        count = 0
        while (await slow.recv_json())["type"] == "much":
            count += 1
        assert count * 60_000 > LIMIT
        assert (await slow.ask("echo", "again"))["payload"] == "again"
        await slow.leave()


async def test_a_reader_that_is_too_slow_is_closed(server: Background) -> None:
    async with RawClient.join(server, ssl=trust()) as slow:
        slow.send_json("flood", 60_000)
        assert (await slow.recv_close()).code == 4002


async def test_compression(server: Background) -> None:
    async with connect(f"wss://localhost:{server.port}/ws", ssl=trust()) as client:
        assert client.response is not None
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        assert json.loads(await client.recv())["type"] == "welcome"
        for sent in (text(LIMIT), text(100)):
            await client.send(sent)
            assert json.loads(await client.recv())["payload"] == json.loads(sent)["payload"]


async def test_close_codes_pass(server: Background) -> None:
    async with RawClient.join(server, ssl=trust()) as client:
        client.send_json("leave", 4321)
        await client.expect_close(4321, "as you wish")
    async with RawClient.join(server, ssl=trust()) as client:
        client.send_close(4001, "bye")
        await client.expect_close(4001, "bye")
    async with connect(f"wss://localhost:{server.port}/ws", ssl=trust()) as other:
        await other.send(json.dumps({"type": "leave", "payload": 4500}))
        async with asyncio.timeout(DEADLINE):
            await other.wait_closed()
        assert other.close_code == 4500


# --- Whom to trust ---------------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_know_the_authority_leaves(server: Background) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        async with RawClient.open(server, ssl=ssl.create_default_context()):
            pass


@pytest.mark.parametrize("command", ["check", "connect"])
async def test_the_commands_trust_whom_they_are_told_to(server: Background, command: str) -> None:
    line = ("-m", "hubbub.cli", command, f"wss://localhost:{server.port}/ws")
    async with process(*line, SSL_CERT_FILE=os.devnull) as stranger:
        assert await stranger.end() == 1
        assert "the certificate is not trusted" in stranger.err
        assert "set SSL_CERT_FILE to its certificate" in stranger.err
    async with process(*line, SSL_CERT_FILE=certificate()["ssl_certfile"]) as friend:
        assert await friend.end(4 * DEADLINE) == 0, friend.said


@pytest.mark.parametrize(
    ("oldest", "newest", "answer"),
    [("TLSv1", "TLSv1_1", None), ("TLSv1_2", "TLSv1_2", "TLSv1.2"), ("TLSv1_2", "TLSv1_3", "TLSv1.3")],
    ids=["1.1", "1.2", "1.3"],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_versions_of_tls_are_refused(
    server: Background, oldest: str, newest: str, answer: str | None
) -> None:
    context = ssl.create_default_context(cafile=certificate()["ssl_certfile"])
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion[oldest]
    context.maximum_version = ssl.TLSVersion[newest]
    if answer is None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with RawClient.open(server, ssl=context):
                pass
        return
    async with RawClient.join(server, ssl=context) as client:
        assert client.writer.get_extra_info("ssl_object").version() == answer


# --- What is no TLS --------------------------------------------------------------------------------------------------


async def test_plain_http_is_turned_away(server: Background) -> None:
    async with RawClient.open(server) as client:
        client.write(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"Traceback" not in await client.expect_end()


@pytest.mark.parametrize("part", [0, 1, 60], ids=["no byte", "a byte", "half a hello"])
async def test_a_handshake_that_does_not_go_on_is_cut(server: Background, part: int) -> None:
    before = time.monotonic()
    async with RawClient.open(server) as client:
        client.write(hello()[:part])
        assert await client.expect_end() == b""
        assert time.monotonic() - before >= HANDSHAKE * 0.9


async def test_a_goodbye_that_is_not_answered_ends_with_a_cut(server: Background) -> None:
    """The server says the end of TLS, waits for the client's, and after the same time no more."""
    async with RawClient.open(server) as client:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        half = trust().wrap_bio(incoming, outgoing, server_hostname="localhost")
        while not half.version() or incoming.pending:
            with suppress(ssl.SSLWantReadError):
                half.do_handshake()
            client.write(outgoing.read())
            if not half.version():
                incoming.write(await client.reader.read(LIMIT))
        half.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        client.write(outgoing.read())
        before = time.monotonic()
        await client.expect_end()
        assert time.monotonic() - before > HANDSHAKE / 2


def test_the_time_for_a_handshake() -> None:
    assert server_module.TLS_HANDSHAKE == 10.0


async def test_a_client_that_vanishes_leaves_nothing_behind(server: Background) -> None:
    for _ in range(5):
        async with RawClient.join(server, ssl=trust()) as client:
            raw = client.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert (await fetch_over_tls(server)) == 200


def hello() -> bytes:
    """The first bytes of a client that speaks TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = trust().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    return outgoing.read()


async def fetch_over_tls(server: Background) -> int:
    """The status of the app's own page."""
    async with RawClient.open(server, trust()) as client:
        client.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await client.recv_answer()).status
