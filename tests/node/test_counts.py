"""Whatever becomes of connections, in whatever order, none is counted in the end."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from hubbub import Connection, Handshake, Hub, Limits
from hubbub.core.arrival import Arrival
from hubbub.errors import CloseCode
from hubbub.servers.asgi import Endpoint
from tests.fakes import PLENTY, SCOPE, RecordingTransport, make_hub, tick

TIGHT = Limits(connections=6, connections_per_address=3, connections_per_user=2)
ADDRESSES = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", None]


def nobody_left(hub: Hub) -> bool:
    quotas, node = hub.node.entrance.quotas, hub.node
    return (quotas._count, quotas._by_network, len(node.registry), node._open) == (0, {}, 0, set())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("when_full", ["refuse", "replace_oldest"])
async def test_connections_that_come_and_go_in_any_order(seed: int, when_full: Any) -> None:
    dice, hub = random.Random(seed), make_hub(limits=TIGHT, when_full=when_full, rates=PLENTY)
    async with hub.running():
        there: list[tuple[Connection, RecordingTransport]] = []
        for _ in range(80):
            kind = dice.randrange(7)
            if kind < 3 or not there:
                transport = RecordingTransport(polite=dice.random() < 0.5)
                connection = transport.receiver = Connection(hub.node)
                address = dice.choice(ADDRESSES)
                connection.accept(transport, Handshake({**SCOPE, "client": address and (address, 1)}))
                there.append((connection, transport))
            else:
                connection, transport = dice.choice(there)
                if kind == 3:
                    connection.identify(dice.choice(["ann", "ben", None]))
                elif kind == 4:
                    connection.close()
                elif kind == 5:
                    transport.abort()
                else:
                    connection.lost(CloseCode.ABNORMAL, "")
            if dice.random() < 0.3:
                await tick()
        for connection, _ in dice.sample(there, len(there)):
            connection.lost(CloseCode.ABNORMAL, "")
        assert nobody_left(hub)
        assert hub.node.entrance.check(Arrival(address="192.0.2.1")) is None


class Unreliable:
    """A server that fails with the nth thing it is given to send, or a client that leaves."""

    def __init__(self, fails_at: int) -> None:
        self.left = fails_at

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"type": "websocket.connect"} if self.left == -1 else {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message: Any) -> None:
        if self.left == 0:
            raise OSError("the client is gone")
        self.left -= 1


@pytest.mark.parametrize("fails_at", [0, 1, 2, 100], ids=["accept", "welcome", "later", "never"])
@pytest.mark.parametrize("answer", ["ann", None, 7, ValueError("broken")], ids=str)
async def test_clients_that_leave_while_they_come(fails_at: int, answer: Any) -> None:
    async def sign_in(handshake: Handshake) -> Any:
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    hub = make_hub(authenticator=sign_in, limits=TIGHT)
    async with hub.running():
        endpoint = Endpoint(hub)
        for _ in range(8):
            server = Unreliable(fails_at)
            scope = {**SCOPE, "subprotocols": [], "query_string": b""}
            await asyncio.gather(endpoint(scope, server.receive, server.send), return_exceptions=True)
        await tick(3)

        assert nobody_left(hub)
