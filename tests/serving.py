"""Real servers for tests, and a client that writes its own bytes.

A server runs in a thread with a loop of its own, on a free port; `granian` and `process` run one as a subprocess. The
client knows nothing of the code under test, and waits for nothing longer than `DEADLINE` seconds.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypeVar

import uvicorn
import uvloop
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config as HypercornConfig

from hubbub.servers.server import Server, configure
from tests.core.wire import MASK, frame

__all__ = ["DEADLINE", "Answer", "Door", "Frame", "Loop", "Process", "RawClient", "RunningServer"]
__all__ += ["fetch", "free_port", "granian", "process", "running", "serving", "until"]

DEADLINE = 10.0
REPOSITORY = Path(__file__).parents[1]

Door = Literal["native", "asgi", "hypercorn"]
Loop = Literal["uvloop", "asyncio"]
Header = tuple[str, str]
Stop = list[Callable[[], Any]]
T = TypeVar("T")


@dataclass
class RunningServer:
    """A server that takes connections.

    Args:
        port: where, on 127.0.0.1.
        tls: whether it speaks TLS.
        loop: the server's own loop, in another thread.
        server: uvicorn's object, for its state.
    """

    port: int
    tls: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    server: Any = None
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """`http://` and the address."""
        return f"http{'s' * self.tls}://{self.host}:{self.port}"

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop: `await server.run(hub.publish(...))`."""
        assert self.loop is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a plain function in the server's loop."""

        async def work() -> T:
            return function(*args)

        return await self.run(work())


@asynccontextmanager
async def serving(
    app: Any, door: Door = "native", loop: Loop = "uvloop", **options: Any
) -> AsyncIterator[RunningServer]:
    """Serve `app` for the length of the block.

    Args:
        app: an ASGI app.
        door: `native` is what `hubbub serve` runs; `asgi` is plain uvicorn.
        loop: the loop the server runs on.
        options: the server's own (`root_path`, `ws_max_size`, `ssl_certfile`...).
    """
    opened = running(app, door, loop, **options)
    server = await asyncio.to_thread(opened.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(opened.__exit__, None, None, None)


@contextmanager
def running(app: Any, door: Door = "native", loop: Loop = "uvloop", **options: Any) -> Iterator[RunningServer]:
    """See `serving`; for fixtures without a loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    found = RunningServer(listener.getsockname()[1], tls="ssl_certfile" in options)
    ready, failure = threading.Event(), list[BaseException]()
    started, stop = ready.set, Stop()

    async def main() -> None:
        found.loop = asyncio.get_running_loop()
        if door == "hypercorn":
            await _hypercorn(app, listener, started, stop, options)
        else:
            found.server = server = _uvicorn(app, door, started, options)
            stop.append(server.stop if isinstance(server, Server) else lambda: setattr(server, "should_exit", True))
            await server.serve(sockets=[listener])

    def thread() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
                runner.run(main())
            assert ready.is_set(), "the app did not start"
        except BaseException as error:
            failure.append(error)
        finally:
            listener.close()
            ready.set()

    worker = threading.Thread(target=thread, name="server", daemon=True)
    worker.start()
    assert ready.wait(2 * DEADLINE), "the server did not start"
    try:
        if failure:
            raise failure[0]
        yield found
    finally:
        if not failure and found.loop is not None:
            found.loop.call_soon_threadsafe(_stop, stop[0])
        worker.join(4 * DEADLINE)
        assert not worker.is_alive(), "the server did not stop"
    if failure:
        raise failure[0]


def _uvicorn(app: Any, door: Door, started: Callable[[], None], options: dict[str, Any]) -> uvicorn.Server:
    options = {"log_config": None, **options}
    if door == "native":
        return _NativeServer(configure(app, **options), started)
    return _PlainServer(uvicorn.Config(app, **options), started)


class _Prompt(uvicorn.Server):
    """Looks more often than ten times a second whether it is to stop."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # noqa: ASYNC110  # as uvicorn does
            await asyncio.sleep(0.005)


class _NativeServer(_Prompt, Server):
    """What `hubbub serve` runs."""


class _PlainServer(_Prompt):
    """uvicorn's own server, which says when it started."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()


async def _hypercorn(app: Any, listener: socket.socket, started: Callable[[], None], stop: Stop, options: Any) -> None:
    end = asyncio.Event()
    stop.append(end.set)

    async def wait() -> None:
        started()
        await end.wait()

    config = HypercornConfig.from_mapping(bind=[f"fd://{listener.detach()}"], graceful_timeout=1, **options)
    await hypercorn_serve(app, config, shutdown_trigger=wait, mode="asgi")


def _stop(stop: Callable[[], Any]) -> None:
    result = stop()
    if result is not None:
        _stopping.add(task := asyncio.get_running_loop().create_task(result))
        task.add_done_callback(_stopping.discard)


_stopping: set[asyncio.Task[Any]] = set()


@contextmanager
def granian(app: str) -> Iterator[RunningServer]:
    """Serve `module:attribute` with granian, a server that is its own process."""
    found = RunningServer(free_port())
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(found.port), app]
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
        try:
            _wait_for(found.port, child, log)
            yield found
        finally:
            child.terminate()
            child.wait(2 * DEADLINE)


def _wait_for(port: int, child: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + 4 * DEADLINE
    while time.monotonic() < deadline and child.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
            return
        time.sleep(0.02)
    log.seek(0)
    raise AssertionError(log.read().decode())


# --- Subprocesses ----------------------------------------------------------------------------------------------------


@dataclass
class Process:
    """A program under test, its standard output and error kept apart."""

    child: asyncio.subprocess.Process
    out: str = ""
    err: str = ""
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.child.pid

    async def says(self, text: str, seconds: float = 3 * DEADLINE) -> str:
        """Wait until its output or log holds `text`; all it said so far."""
        await until(
            lambda: text in self.out + self.err or self.child.returncode is not None, seconds, lambda: self.said
        )
        assert text in self.out + self.err, self.said
        return self.out + self.err

    async def end(self, seconds: float = 2 * DEADLINE) -> int:
        """Wait until it is gone; its exit code."""
        async with asyncio.timeout(seconds):
            code = await self.child.wait()
            await asyncio.gather(*self._readers)
        return code

    @property
    def said(self) -> str:
        """All it said so far, for the message of a failed test."""
        return f"--- out\n{self.out}\n--- err\n{self.err}"

    async def read(self, stream: asyncio.StreamReader, name: Literal["out", "err"]) -> None:
        """Keep what comes."""
        while line := await stream.readline():
            setattr(self, name, getattr(self, name) + line.decode())


@asynccontextmanager
async def process(*command: str, cwd: Path | None = None, **environment: str) -> AsyncIterator[Process]:
    """Run a Python program (`-m hubbub.cli serve ...`) for the length of the block; it is killed at the end."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("WS_", "HUBBUB_", "PORT", "DEPLOY_"))
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        cwd=cwd or REPOSITORY,
        env={**env, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    running = Process(child)
    assert child.stdout is not None
    assert child.stderr is not None
    reads = (running.read(child.stdout, "out"), running.read(child.stderr, "err"))
    running._readers = [asyncio.create_task(read) for read in reads]
    try:
        yield running
    finally:
        if child.returncode is None:
            os.killpg(child.pid, 9)
        await asyncio.wait_for(asyncio.gather(child.wait(), *running._readers), DEADLINE)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def until(
    true: Callable[[], Any], seconds: float = DEADLINE, otherwise: Callable[[], str] = lambda: "it never became true"
) -> None:
    """Wait for something that has no event to await."""
    try:
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110  # it happens in another thread or process
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(otherwise()) from None


# --- The client ------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """An HTTP answer; header names in lower case."""

    status: int
    headers: list[Header]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of this name."""
        return next((value for key, value in self.headers if key == name.lower()), None)


class Frame(NamedTuple):
    """A frame as it came."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int:
        """The code of a close frame, 1005 where there is none."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005

    @property
    def reason(self) -> str:
        """The reason of a close frame."""
        return self.payload[2:].decode()


class RawClient:
    """A WebSocket client that does as it is told, right or wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.answer: Answer
        self.id = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, server: RunningServer, ssl: ssl.SSLContext | None = None) -> AsyncIterator[RawClient]:
        """Connect, and say nothing yet."""
        name = "localhost" if ssl else None
        async with asyncio.timeout(DEADLINE):
            streams = await asyncio.open_connection(server.host, server.port, ssl=ssl, server_hostname=name)
        client = cls(*streams)
        try:
            yield client
        finally:
            client.cut()

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        server: RunningServer,
        path: str = "/ws",
        *,
        headers: Iterable[Header] = (),
        status: int = 101,
        ssl: ssl.SSLContext | None = None,
    ) -> AsyncIterator[RawClient]:
        """Connect and shake hands; the server must answer with `status`."""
        async with cls.open(server, ssl) as client:
            await client.handshake(server, path, headers)
            assert client.answer.status == status, client.answer
            yield client

    @classmethod
    @asynccontextmanager
    async def join(cls, server: RunningServer, path: str = "/ws", **options: Any) -> AsyncIterator[RawClient]:
        """Connect to a hub and take its welcome; `id` is the connection's."""
        async with cls.connect(server, path, **options) as client:
            welcome = await client.recv_json()
            assert welcome["type"] == "welcome", welcome
            client.id = welcome["payload"]["connectionId"]
            yield client

    # Bytes

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    async def drain(self) -> None:
        """Wait until the server took what was written."""
        async with asyncio.timeout(DEADLINE):
            await self.writer.drain()

    async def read(self, count: int) -> bytes:
        """Wait for this many bytes."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.readexactly(count)

    async def expect_end(self, seconds: float = DEADLINE) -> bytes:
        """Wait for the end of the stream (a reset counts); what came before it."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def cut(self) -> None:
        """End the connection without a word."""
        self.writer.transport.abort()

    # HTTP

    async def handshake(self, server: RunningServer, path: str = "/ws", headers: Iterable[Header] = ()) -> None:
        """Ask for a WebSocket and keep the answer; a 101 must prove that it read the key."""
        key = base64.b64encode(os.urandom(16)).decode()
        self.write(request(server, path, key, headers))
        self.answer = await self.recv_answer()
        if self.answer.status == 101:
            proof = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
            assert self.answer.header("sec-websocket-accept") == base64.b64encode(proof).decode()

    async def recv_answer(self) -> Answer:
        """Wait for an HTTP answer, with its body unless it is a 101."""
        async with asyncio.timeout(DEADLINE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            pairs = (line.partition(":") for line in lines)
            answer = Answer(int(first.split()[1]), [(name.lower(), value.strip()) for name, _, value in pairs], b"")
            if answer.status == 101:
                return answer
            if (length := answer.header("content-length")) is not None:
                return answer._replace(body=await self.reader.readexactly(int(length)))
            return answer._replace(body=await self._chunks())

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readuntil(b"\r\n")
        return body

    # Frames

    def send_frame(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        rsv: int = 0,
        mask: bytes = MASK,
        form: int | None = None,
    ) -> None:
        """Send one masked frame; `rsv` is 4 for RSV1, 2, 1; `form` forces the bits of the length."""
        self.write(frame(fin << 7 | rsv << 4 | opcode, payload, mask=mask, form=form))

    def send_text(self, text: str) -> None:
        """Send a text message."""
        self.send_frame(1, text.encode())

    def send_json(self, type: str, payload: Any = None, **more: Any) -> None:
        """Send a message of the hub's protocol; `...` leaves the payload out."""
        self.send_text(json.dumps({"type": type, **({} if payload is ... else {"payload": payload}), **more}))

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame."""
        self.send_frame(8, code.to_bytes(2, "big") + reason.encode())

    async def recv_frame(self) -> Frame:
        """Wait for a frame, which must not be masked."""
        first, length = await self.read(2)
        assert length < 128, "the server masked a frame"
        if length > 125:
            length = int.from_bytes(await self.read(2 if length == 126 else 8), "big")
        return Frame(first & 15, await self.read(length), first >= 128, first >> 4 & 7)

    async def recv_text(self) -> str:
        """Wait for a text message in one frame."""
        received = await self.recv_frame()
        assert (received.opcode, received.fin, received.rsv) == (1, True, 0), received
        return received.payload.decode()

    async def recv_json(self, type: str | None = None) -> Any:
        """Wait for a message of the hub's protocol; its payload alone if `type` says what it must be."""
        message = json.loads(await self.recv_text())
        if type is None:
            return message
        assert message["type"] == type, message
        return message.get("payload")

    async def ask(self, type: str, payload: Any = None, **more: Any) -> Any:
        """Send a message and wait for one."""
        self.send_json(type, payload, **more)
        return await self.recv_json()

    async def recv_close(self) -> Frame:
        """Wait for a close frame, past everything else."""
        while (received := await self.recv_frame()).opcode != 8:
            pass
        return received

    async def expect_close(self, code: int, reason: str | None = None) -> Frame:
        """Wait for a close frame with this code, answer it, and wait for the end."""
        received = await self.recv_close()
        assert received.code == code, received
        assert reason is None or received.reason == reason, received
        if not self.writer.is_closing():
            self.send_frame(8, received.payload[:2])
        await self.expect_end()
        self.writer.close()
        return received

    async def leave(self, code: int = 1000) -> None:
        """Say goodbye and wait for the answer and the end."""
        self.send_close(code)
        await self.recv_close()
        await self.expect_end()
        self.writer.close()


def request(server: RunningServer, path: str, key: str, headers: Iterable[Header] = ()) -> bytes:
    """An upgrade request; a header given replaces the usual one, an empty value leaves it out."""
    usual = {
        "Host": f"{server.host}:{server.port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
    }
    given = list(headers)
    names = {name.lower() for name, _ in given}
    lines = [(name, value) for name, value in usual.items() if name.lower() not in names]
    lines += [(name, value) for name, value in given if value]
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1")


async def fetch(
    server: RunningServer, path: str, method: str = "GET", headers: Iterable[Header] = (), body: bytes = b""
) -> Answer:
    """One HTTP request on a connection of its own."""
    lines = [("Host", f"{server.host}:{server.port}"), ("Connection", "close"), *headers]
    if body:
        lines.append(("Content-Length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    async with RawClient.open(server) as client:
        client.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        return await client.recv_answer()
