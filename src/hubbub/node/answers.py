"""What a node does when another one says or asks something; the hub's own cluster-wide methods go the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.bus import (
    Acked,
    Broadcast,
    Cancel,
    Close,
    Connections,
    Count,
    Put,
    Question,
    Ran,
    Recheck,
    Request,
    Revoked,
    Runs,
    Said,
    Send,
    Spent,
    Stored,
    Streamed,
    Subscribe,
    Totals,
    Unsubscribe,
    Whole,
)
from hubbub.core.leases import Delta, Snapshot
from hubbub.core.records import Revocation
from hubbub.errors import CloseCode, ConnectionClosed, RequestError
from hubbub.node.connected import Connected

if TYPE_CHECKING:
    from hubbub.node.connection import Connection
    from hubbub.node.node import Node

__all__ = ["Answers"]


class Answers:
    """Acts for others on this node's connections.

    Args:
        node: this one.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    def take(self, said: Said, now: float) -> None:
        """Do what another node says, `now` in monotonic seconds."""
        node = self._node
        match said:
            case Send(user_id, text):
                self.send(user_id, text)
            case Broadcast(text, exclude):
                node.broadcast(text, exclude)
            case Stored(user_id, cursor, dropped):
                node.inbox.stored_elsewhere(user_id, cursor, dropped)
            case Acked(user_id, device, cursor):
                node.inbox.acked_elsewhere(user_id, device, cursor)
            case Runs(peer, channels):
                node.mirrors.runs(peer, channels)
            case Ran(peer, channels):
                node.mirrors.ran(peer, channels)
            case Streamed(channel, messages):
                node.mirrors.told(channel, messages)
            case Spent():
                node.sharing.learn(said, now)
            case Delta():
                if not node.presence.leases.apply_delta(said, now):
                    node.cluster.want(said.node)
            case Snapshot():
                node.presence.leases.apply_snapshot(said, now)
            case _:
                raise AssertionError(said)

    async def give(self, question: Question) -> Any:
        """Answer a question.

        Raises:
            RequestError: it cannot be done.
        """
        node = self._node
        match question:
            case Count(user_id):
                return node.registry.count_of_user(user_id)
            case Connections(user_id):
                found = node.registry.of_user(user_id)
                return [Connected(each.id, tuple(each.channels), each.last_activity) for each in found]
            case Totals():
                return {"connections": len(node.registry), "channels": len(node.channels)}
            case Close(user_id, code, reason):
                return self._close(list(node.registry.of_user(user_id)), code, reason)
            case Revoked(subject, at, until):
                return self.revoke(Revocation(subject, at, until))
            case Recheck(channel, user_id):
                return await self._recheck(channel, user_id)
            case Subscribe(user_id, id, channel):
                return await self._subscribe(self._meant(user_id, id), channel)
            case Unsubscribe(user_id, id, channel):
                return sum([self._unsubscribe(each, channel) for each in self._meant(user_id, id)])
            case Put(id, text):
                return sum(connection.send_text(text) for connection in self._meant(None, id))
            case Whole(channel):
                return node.streams.whole(channel)
            case Cancel(channel, id):
                return node.streams.end(channel, id)
            case Request():
                return await self._request(question)

    def send(self, user_id: str, text: bytes) -> int:
        """Send an encoded message to a user's connections here; how many there are."""
        return sum(connection.send_text(text) for connection in self._node.registry.of_user(user_id))

    def revoke(self, revocation: Revocation) -> int:
        """Know a revocation, which is kept already, and close the connections it means; how many."""
        node, (kind, _, name) = self._node, revocation.subject.partition(":")
        node.gate.revocations.learn(revocation)
        if kind == "user":
            meant = list(node.registry.of_user(name))
        else:
            meant = [each for each in node.registry if each.claims.get("jti") == name]
        return self._close(meant, CloseCode.UNAUTHORIZED, "the token was revoked")

    def _close(self, connections: list[Connection], code: int, reason: str) -> int:
        for connection in connections:
            connection.close(code, reason)
        return len(connections)

    async def _recheck(self, channel: str | None, user_id: str | None) -> int:
        subscriptions = self._node.subscriptions
        subscriptions.note_recheck()
        if channel is not None:
            for connection in subscriptions.subscribers(channel):
                await subscriptions.recheck(connection, [channel])
        if user_id is not None:
            for connection in self._meant(user_id, None):
                await subscriptions.recheck(connection, connection.channels)
        return 0

    async def _subscribe(self, connections: list[Connection], channel: str) -> int:
        """Subscribe all that have room, then say what was wrong with the others."""
        given, wrong = 0, None
        for connection in connections:
            try:
                given += await self._node.subscriptions.give(connection, channel)
            except RequestError as error:
                wrong = error
        if wrong is not None:
            raise wrong
        return given

    def _unsubscribe(self, connection: Connection, channel: str) -> bool:
        ended = self._node.subscriptions.remove(connection, channel)
        if ended:
            connection.send("unsubscribed", {"channel": channel})
        return ended

    async def _request(self, question: Request) -> bytes:
        connection = self._node.registry.get(question.connection_id)
        if connection is None:
            raise ConnectionClosed("This connection is not open.")
        payload = msgspec.Raw(question.payload) if question.payload else None
        answer: msgspec.Raw = await connection.request(
            question.type, payload, timeout=question.timeout, returns=msgspec.Raw
        )
        return bytes(answer)

    def _meant(self, user_id: str | None, connection_id: str | None) -> list[Connection]:
        registry = self._node.registry
        if user_id is not None:
            return list(registry.of_user(user_id))
        connection = None if connection_id is None else registry.get(connection_id)
        return [] if connection is None else [connection]
