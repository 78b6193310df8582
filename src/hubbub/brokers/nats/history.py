"""Reading what a stream has of a channel.

Rules of this file:
1. Where a channel ends is what the leader of its stream says. What is before that is read from any server that has the
   stream: they have all of it in one order, and one that has less is found out by the end it does not reach.
2. Messages of a channel leave a stream oldest first. So a position is good as long as the oldest message that the
   stream has is not behind it; that is asked after reading, of the leader.
3. A position behind which the stream has forgotten something is good only if that was nothing of this channel: as long
   as no message behind it is too old, and the channel has fewer than it may have.
4. A purge leaves a message in the channel. No position before that is good.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hubbub.brokers.nats.body import Body, decode_stored, field, milliseconds
from hubbub.brokers.nats.link import Link, Refused, Unanswered
from hubbub.brokers.nats.streams import Stream, Streams
from hubbub.brokers.nats.wire import Message
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Past, Position, Publication

__all__ = ["Found", "Histories"]

NO_MESSAGE, NOT_FOUND = 10037, 10059
PAGE, MOST_BYTES = 256, 4 * 1024 * 1024
FEW = 3
AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Found:
    """One message of a stream; `body` is None if it is none of ours."""

    subject: str
    offset: int
    at: int
    body: Body | None

    @property
    def purged(self) -> bool:
        """Whether the channel was purged here."""
        return self.body is not None and self.body.purged


class Histories:
    """Reads streams.

    Args:
        link: the connection.
        streams: they know which are there.

    Attributes:
        reads: pages that were read, for those who want to know what many clients cost.
    """

    def __init__(self, link: Link, streams: Streams) -> None:
        self._link = link
        self._streams = streams
        self.reads = 0

    async def head(self, stream: Stream, channel: str) -> tuple[Position, Found | None]:
        """Where a channel ends, and its last message, if it has one."""
        subject = stream.subject(channel)
        last = await self._get(stream, last_by_subj=subject)
        if last is None:
            # Asked in this order: nothing of the channel is at or before the end of the stream, and so it stays.
            end = (await self._state(stream))["last_seq"]
            last = await self._get(stream, last_by_subj=subject)
            if last is None:
                return Position(end, stream.epoch), None
        return Position(last.offset, stream.epoch), last

    async def past(
        self, stream: Stream, namespace: Namespace, channel: str, since: Position | None, limit: int, now: int
    ) -> Past:
        """See `contracts.Broker.past`."""
        head, last = await self.head(stream, channel)
        oldest = now - round(namespace.history_ttl * 1000)
        if since is None:
            wanted = min(limit, namespace.history)
            found = [last] if last and wanted == 1 else await self._latest(stream, channel, head) if wanted else []
            kept = [each for each in found if each.at > oldest][-wanted:] if wanted else []
            return Past(_publications(kept, 0), head, True)
        if since.epoch != stream.epoch or since.offset > head.offset:
            return Past([], head, False)
        if since.offset == head.offset:
            return Past([], head, True)
        found = [] if last is None else await self._read(stream, last.subject, since.offset, head.offset, limit)
        gone = any(each.purged for each in found) or (found and found[0].at <= oldest)
        if gone or not await self._good(stream, channel, since.offset):
            return Past([], head, False)
        return Past(_publications(found, since.offset), head, True)

    async def page(self, stream: Stream, subject: str, behind: int, limit: int) -> list[Found]:
        """Messages behind an offset, as many as one server gives."""
        self.reads += 1
        question = {"seq": behind + 1, "next_by_subj": subject, "batch": limit, "max_bytes": MOST_BYTES}
        return _messages(await self._link.collect(f"$JS.API.DIRECT.GET.{stream.name}", msgspec.json.encode(question)))

    async def ends(self, stream: Stream, channels: Sequence[str], upto: int) -> dict[str, int]:
        """Where channels end, by subject, as of a time at which the stream ended at `upto`."""
        wanted = [stream.subject(channel) for channel in channels]
        ends: dict[str, int] = {}
        misses = 0
        while wanted:
            question = msgspec.json.encode({"multi_last": wanted[:PAGE], "max_bytes": MOST_BYTES, "batch": PAGE})
            messages = await self._link.collect(f"$JS.API.DIRECT.GET.{stream.name}", question)
            found = {each.subject: each.offset for each in _messages(messages)}
            if messages[-1].status == b"204" and _number(messages[-1], b"Nats-UpTo-Sequence") >= upto and found:
                ends |= found
                more = _number(messages[-1], b"Nats-Num-Pending")
                again = [subject for subject in wanted[:PAGE] if subject not in found] if more else []
                wanted = again + wanted[PAGE:]
            elif misses < FEW:
                misses += 1  # nothing, or from a server that is behind: the next answer may be another's
            else:
                for start in range(0, min(len(wanted), PAGE), AT_ONCE):
                    some = wanted[start : start + AT_ONCE]
                    ends |= zip(some, await asyncio.gather(*(self._end(stream, each) for each in some)), strict=True)
                wanted = wanted[PAGE:]
        return ends

    async def first_since(self, stream: Stream, at: str) -> int | None:
        """The offset of the first message that was stored at a time or later."""
        found = await self._get(stream, start_time=at)
        return None if found is None else found.offset

    # Inside

    async def _end(self, stream: Stream, subject: str) -> int:
        last = await self._get(stream, last_by_subj=subject)
        return 0 if last is None else last.offset

    async def _latest(self, stream: Stream, channel: str, head: Position) -> list[Found]:
        """All that the stream has of a channel, behind its last purge."""
        found = await self._read(stream, stream.subject(channel), 0, head.offset, stream.keeps or None)
        purges = [number for number, each in enumerate(found) if each.purged]
        return found[purges[-1] + 1 :] if purges else found

    async def _read(self, stream: Stream, subject: str, behind: int, head: int, limit: int | None) -> list[Found]:
        """Messages behind an offset, up to the head, at most `limit`."""
        found: list[Found] = []
        misses = 0
        while behind < head and (limit is None or len(found) < limit):
            page = await self.page(stream, subject, behind, PAGE if limit is None else min(limit - len(found), PAGE))
            if not page:
                misses += 1
                one = None if misses < FEW else await self._get(stream, seq=behind + 1, next_by_subj=subject)
                if misses >= FEW and one is None:
                    break  # it was forgotten meanwhile
                page = [] if one is None else [one]
            found += [each for each in page if each.offset <= head]
            behind = page[-1].offset if page else behind
        return found

    async def _good(self, stream: Stream, channel: str, offset: int) -> bool:
        """Whether nothing of a channel behind an offset was forgotten."""
        subject = stream.subject(channel)
        first = await self._get(stream, seq=1, next_by_subj=subject)
        if first is not None and first.offset <= offset:
            return True
        state = await self._state(stream, subjects_filter=subject)
        many = (state.get("subjects") or {}).get(subject, 0)
        young = state["first_seq"] <= offset + 1
        return young and (not stream.keeps or many < stream.keeps) and not (first is not None and first.purged)

    async def _state(self, stream: Stream, **question: Any) -> dict[str, Any]:
        info = await self._link.api(f"STREAM.INFO.{stream.name}", question)
        state: dict[str, Any] = info["state"]
        if stream.all not in info["config"]["subjects"]:
            self._streams.forget(stream)
            raise Unanswered(f"The stream {stream.name} was made anew: try again.")
        return state

    async def _get(self, stream: Stream, **question: Any) -> Found | None:
        """One message, as the leader has it."""
        try:
            answer = await self._link.api(f"STREAM.MSG.GET.{stream.name}", question)
        except Refused as error:
            if error.number == NOT_FOUND:
                self._streams.forget(stream)
                raise Unanswered(f"The stream {stream.name} was deleted: try again.") from None
            if error.number == NO_MESSAGE:
                return None
            raise
        message = answer["message"]
        data = b64decode(message.get("data") or "")
        return Found(
            message["subject"], message["seq"], milliseconds(message["time"]), decode_stored(data, message["subject"])
        )


def _messages(messages: Sequence[Message]) -> list[Found]:
    found = []
    for message in messages:
        headers = message.headers
        offset = field(headers, b"Nats-Sequence")
        if not message.status and offset.isdigit():
            at = milliseconds(field(headers, b"Nats-Time-Stamp").decode("ascii"))
            subject = field(headers, b"Nats-Subject").decode("ascii", "replace")
            found.append(Found(subject, int(offset), at, decode_stored(message.data, subject)))
    return found


def _number(message: Message, name: bytes) -> int:
    text = field(message.headers, name)
    return int(text) if text.isdigit() else 0


def _publications(found: Sequence[Found], previous: int) -> list[Publication]:
    publications = []
    for each in found:
        if each.body is not None and not each.body.purged:
            publications.append(each.body.publication(each.offset, previous, each.at))
            previous = each.offset
    return publications
