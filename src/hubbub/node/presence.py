"""Who is in the channels of this node: asked, set and told.

Rules of this file:
1. A subscriber is shown the members in `subscribed`, itself among them, and is told all that changes from then on.
2. Changes wait for the next beat and go out as one push of each kind: leave, update, join. A push has so many members
   at most, and `count` says how many there are by then. Many subscribers are told in portions, in the same order.
3. Only those see any of it whom the app's rules let have `presence`; nobody is pushed anything where it is "hidden".
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.envelope import encode
from hubbub.core.leases import Leases
from hubbub.core.presence import Entry, Key, Member
from hubbub.core.session import ConnectionState
from hubbub.errors import RequestError
from hubbub.node.attendance import Attendance
from hubbub.node.batch import Batch, Publication

if TYPE_CHECKING:
    from hubbub.core.channels import Channel
    from hubbub.core.namespaces import Namespace
    from hubbub.node.connection import Connection
    from hubbub.node.node import Node
    from hubbub.node.outbox import Outbox

__all__ = ["MOST_ASKED", "MOST_SHOWN", "Presence", "Present"]

MOST_SHOWN = 100
"""Members in `subscribed` and in one push, at most."""
MOST_ASKED = 1000
"""Members in the answer to `presence`, at most."""
MOST_STATE = 1024  # bytes of JSON
BEATS = 4  # a second
PORTION = 64  # subscribers told in one turn of the loop
COST = 2  # of telling of a channel, in subscribers
TTL = 10.0  # seconds for which another node is believed that is not heard of


@dataclass(frozen=True, slots=True)
class Present:
    """A member of a channel, as the server sees it.

    Args:
        user_id: the user, None while anonymous.
        connection_ids: its connections in the channel, oldest first.
        state: what the member set.
    """

    user_id: str | None
    connection_ids: tuple[str, ...]
    state: Any = None


class Presence:
    """The presence of a node's subscribers.

    Args:
        node: whose.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.reset()

    def reset(self) -> None:
        """Have nobody."""
        self.here = Attendance(self._node)
        self.leases = Leases(self._node.cluster.id, TTL, self.here, shared=self._node.broker.shared)
        self._blind: dict[str, set[Connection]] = {}
        self._due: deque[str] = deque()
        self._pushes: deque[tuple[str, Batch, Iterator[Outbox]]] = deque()
        self._beat = 0

    # Subscriptions that begin and end

    async def look(self, connection: Connection, namespace: Namespace, channel: str) -> bool:
        """Whether a subscriber is shown who is there, by the app's rules."""
        if namespace.presence is not True:
            return False
        try:
            await self._node.subscriptions.permit("presence", connection, channel)
        except RequestError:
            return False
        return True

    def began(self, connection: Connection, channel: Channel[Outbox]) -> None:
        """Let a new subscriber be there, if it is not yet."""
        if not channel.present:
            return
        ahead = self.here.forget(connection, channel.name)
        if ahead is None:
            self.leases.change(channel.name, connection.id, None, Entry(connection.id, connection.user_id))
        elif ahead.state is not None:
            self.here.put(connection, channel.name, ahead)

    def answer(self, connection: Connection, namespace: Namespace, channel: str, sees: bool) -> dict[str, Any]:
        """What `subscribed` says of a subscriber's company; it begins to be there with it.

        Args:
            connection: the subscriber's.
            namespace: the channel's.
            channel: its name.
            sees: what `look` said.
        """
        if not namespace.presence or connection.state is not ConnectionState.OPEN:
            return {}
        if not sees:
            if namespace.presence is True:
                self._blind.setdefault(channel, set()).add(connection)
            self._come(connection, channel)
            return {}
        self.leases.rosters.get(channel).show()
        self._come(connection, channel)
        self.leases.rosters.get(channel).show_itself(connection.id)
        return {"presence": self._list(channel, MOST_SHOWN)}

    def ended(self, connection: Connection, channel: str, *, subscribed: bool) -> None:
        """Let a connection be there no more; `subscribed` says whether it was, where presence is kept."""
        before = self.here.forget(connection, channel)
        if before is None and subscribed:
            before = Entry(connection.id, connection.user_id)
        if before is not None:
            self.leases.change(channel, connection.id, before, None)
            self._see(connection, channel)

    def identified(self, connection: Connection, before: str | None) -> None:
        """Let a connection be there as its present user, who has set nothing yet, not as the one before."""
        if before == connection.user_id:
            return
        for channel in self._node.subscriptions.channels(connection):
            if self.here.has(connection, channel):
                was = self.here.forget(connection, channel) or Entry(connection.id, before)
                entry = Entry(connection.id, connection.user_id)
                self.here.put(connection, channel, entry)
                self.leases.rosters.get(channel).show()  # it was shown itself as who it was
                self.leases.change(channel, connection.id, was, entry)

    async def recheck(self, connection: Connection, channel: str) -> None:
        """Ask the app again whether a subscriber may see who is there."""
        namespace = self._node.subscriptions.find(channel)
        if namespace.presence is not True:
            return
        sees = await self.look(connection, namespace, channel)
        if not self.here.has(connection, channel):
            return
        if not sees:
            self._blind.setdefault(channel, set()).add(connection)
        elif self._see(connection, channel):
            connection.send("presence", {"channel": channel, **self._show(channel, MOST_SHOWN)})

    # Asking and setting

    async def ask(self, connection: Connection, channel: str, limit: int, count: bool) -> dict[str, Any]:
        """Answer a client that asks who is there, or with `count` only how many.

        Raises:
            RequestError: `forbidden`, `bad_channel`, or what the app says.
        """
        await self._permit(connection, channel)
        return {"channel": channel, **({"count": self.count(channel)} if count else self._show(channel, limit))}

    async def set_state(self, connection: Connection, channel: str, state: bytes) -> dict[str, Any]:
        """Make JSON part of a subscriber's member; `null` takes it back.

        Raises:
            RequestError: `forbidden`, `bad_channel`, `invalid_payload`, or what the app says.
        """
        if len(state) > MOST_STATE:
            raise RequestError("invalid_payload", f"A state has {MOST_STATE} bytes at most.", "state")
        await self._permit(connection, channel)
        before = self.here.get(connection, channel)
        if before is None:
            raise RequestError("forbidden", "Subscribe to a channel before you set a state on it.", "channel")
        value = None if state == b"null" else state
        entry = Entry(connection.id, connection.user_id, value, 0 if value is None else _now())
        self.here.put(connection, channel, entry)
        self.leases.change(channel, connection.id, before, entry)
        return {"channel": channel, "state": msgspec.Raw(state)}

    def count(self, channel: str) -> int:
        """How many members a channel has."""
        return len(self.leases.rosters.get(channel))

    def members(self, channel: str) -> list[Present]:
        """All members of a channel, with their connections, for the server.

        Raises:
            RequestError: `bad_channel`.
        """
        self._node.subscriptions.find(channel)
        roster = self.leases.rosters.get(channel)
        ids: dict[Key, list[str]] = {}
        for entry in self.leases.entries(channel):
            ids.setdefault(entry.key, []).append(entry.connection_id)
        return [_present(member, ids[key]) for key, member in zip(roster, roster.members(), strict=True)]

    # Telling

    def beat(self, now: float) -> None:
        """Tell the subscribers what has changed, 4 times a second at most, `now` in monotonic seconds."""
        beat = int(now * BEATS)
        if beat != self._beat:
            self._beat = beat
            idle = not self._due and not self._pushes
            self._due.extend(self.leases.rosters.take_changed())
            if idle:
                self._tell_some()

    def _tell_some(self) -> None:
        """Tell a portion of the subscribers now and the others in the next turns: nothing else waits long."""
        left = PORTION
        while left > 0:
            if self._pushes:
                left -= self._put_some(left)
            elif self._due:
                left -= self._tell(self._due.popleft())
            else:
                return
        asyncio.get_running_loop().call_soon(self._tell_some)

    def _tell(self, channel: str) -> int:
        """Tell of one channel; what that costs, counted in subscribers told."""
        changes, cost = self.leases.rosters.tell(channel), COST
        if self._node.subscriptions.find(channel).presence is not True:
            return cost
        for type, members in (
            ("presence_leave", changes.left),
            ("presence_update", changes.updated),
            ("presence_join", changes.joined),
        ):
            if members:
                cost += self._push(channel, type, members, changes.count)
        return cost

    def _push(self, channel: str, type: str, members: list[Member], count: int) -> int:
        """Note a push for a few subscribers, queue one for many; how many it is noted for."""
        node, blind = self._node, self._blind.get(channel, ())
        found, noted = node.channels.get(channel), 0
        late = [
            each.outbox
            for each in node.subscriptions.catching_up(channel)
            if each not in blind and self.here.has(each, channel)
        ]
        if found is None and not late:
            return 0
        listed = msgspec.Raw(msgspec.json.encode(members[:MOST_SHOWN]))
        text = encode(type, {"channel": channel, "members": listed, "count": count}, _now())
        if found is not None and not blind and found.slow == "close" and len(found.members) < PORTION:
            node.delivery.note(found, text)
            noted = len(found.members)
        elif found is not None:
            late += [outbox for outbox in found.members if outbox.connection not in blind]
        if late:
            self._pushes.append((channel, Batch([Publication(0, text)]), iter(late)))
        return noted

    def _put_some(self, most: int) -> int:
        """Give the first push to so many that are still there, or to all; how many they were."""
        channel, batch, outboxes = self._pushes[0]
        count = 0
        for outbox in islice(outboxes, most):
            count += 1
            if self.here.has(outbox.connection, channel):
                self._node.delivery.drain(outbox)
                outbox.put(batch.data(outbox.transport.form))
        if count < most:
            self._pushes.popleft()
        return count

    # Inside

    def _come(self, connection: Connection, channel: str) -> None:
        """Let a connection be there, if it is not, before it is a subscriber."""
        if not self.here.has(connection, channel):
            entry = Entry(connection.id, connection.user_id)
            self.here.put(connection, channel, entry)
            self.leases.change(channel, connection.id, None, entry)

    async def _permit(self, connection: Connection, channel: str) -> None:
        await self._node.subscriptions.permit("presence", connection, channel)
        if not self._node.subscriptions.find(channel).presence:
            raise RequestError("forbidden", "Who is on this channel is not kept.", "channel")

    def _see(self, connection: Connection, channel: str) -> bool:
        """Take a connection out of those that see nothing; False if it was not there."""
        blind = self._blind.get(channel)
        if blind is None or connection not in blind:
            return False
        blind.remove(connection)
        if not blind:
            del self._blind[channel]
        return True

    def _show(self, channel: str, most: int) -> dict[str, Any]:
        self.leases.rosters.get(channel).show()
        return self._list(channel, most)

    def _list(self, channel: str, most: int) -> dict[str, Any]:
        roster = self.leases.rosters.get(channel)
        return {"members": msgspec.Raw(roster.listing(most)), "count": len(roster)}


def _present(member: Member, ids: list[str]) -> Present:
    return Present(member.user_id, tuple(ids), None if member.state is None else msgspec.json.decode(member.state))


def _now() -> int:
    return time.time_ns() // 1_000_000
