"""What the hub at `/channels` has under attack: channels of each kind, a rule whose mind changes, and publishers."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import msgspec

from hubbub import Connection, Hub
from hubbub.node.access import Access
from hubbub.servers.native import NativeTransport

__all__ = ["add_channels", "add_publishers"]

KERNEL = 16 * 1024
PART = 0.01


class Flood(msgspec.Struct):
    """What `flood` takes: `rate` is messages a second, `keys` how many names their events have."""

    channel: str
    count: int
    size: int
    rate: int
    keys: int = 2**31


def add_channels(hub: Hub) -> None:
    """Declare channels of all kinds, and what changes their rights."""
    hub.namespace("room", history=1000, durable=False)
    hub.namespace("doc", history=100, archive=True, presence=True)
    hub.namespace("user", personal=True, history=10, durable=False)
    hub.namespace("lounge", presence=True)
    hub.namespace("latest", slow="latest_per_key")
    barred: set[tuple[str | None, int]] = set()

    @hub.channel("doc:{id}")
    def may(access: Access, id: int) -> bool:
        return (access.user_id, id) not in barred

    @hub.on("bar")
    async def bar(conn: Connection, payload: tuple[str, int]) -> bool:
        barred.add(payload)
        await hub.recheck(user_id=payload[0])
        return True

    @hub.on("keep")
    async def keep(conn: Connection, payload: tuple[str, Any]) -> bool:
        return (await hub.send_to_user(payload[0], "kept", payload[1], durable=True)).stored


def add_publishers(hub: Hub) -> None:
    """Let clients have much published, and streams that never end."""
    hub.namespace("oldest", slow="drop_oldest")

    @hub.on("say")
    async def say(conn: Connection, payload: tuple[str, Any]) -> int | None:
        return (await hub.publish(payload[0], "said", payload[1])).offset

    @hub.on("flood")
    async def flood(conn: Connection, payload: Flood) -> int:
        loop, data = asyncio.get_running_loop(), "x" * payload.size
        began, sent = loop.time(), 0
        while sent < payload.count:
            due = int((loop.time() - began + PART) * payload.rate)
            due = min(due, sent + 1 + int(3 * PART * payload.rate), payload.count)  # no burst on a busy machine
            while sent < due:
                await hub.publish(payload.channel, str(sent % payload.keys), data)
                sent += 1
            await asyncio.sleep(PART)
        await hub.publish(payload.channel, "last")
        return sent

    @hub.on("narrow")
    def narrow(conn: Connection) -> None:
        """Let the kernel keep little for this connection: what is not read waits with the hub."""
        transport = conn.outbox.transport
        assert isinstance(transport, NativeTransport)
        with socket.socket(fileno=os.dup(transport._fd)) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)

    @hub.on("produce")
    async def produce(conn: Connection, payload: str) -> None:
        """Begin a stream that never ends."""
        async with hub.stream(payload) as stream:
            while True:
                await stream.append("more ")
                await asyncio.sleep(PART)
