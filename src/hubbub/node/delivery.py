"""Fan-out: a publication is noted, and goes out to all subscribers with the loop's tick.

Rules of this file (the one rule of order):
1. Publications are numbered as they are noted. `Outbox.seen` is the last number an outbox got, or is not to get.
2. A direct send, subscribe, unsubscribe or close first drains that outbox; so everybody sees one order.
3. A publication is encoded once per form, joined once per set of pending publications, and shared by all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from hubbub.core.channels import Channel
from hubbub.core.forms import Form
from hubbub.node.batch import Batch, Key, Publication
from hubbub.node.outbox import Outbox

__all__ = ["Batch", "Delivery", "Publication"]

EARLY_COUNT = 32
EARLY_BYTES = 64 * 1024


class Delivery:
    """The noted publications of one tick, and the way they go out."""

    def __init__(self) -> None:
        self.everyone: Channel[Outbox] = Channel("")
        self.number = 0
        self.noted: dict[Channel[Outbox], list[Publication]] = {}
        self._start = 0
        self._bytes = 0

    def note(
        self,
        channel: Channel[Outbox],
        text: bytes,
        exclude: Outbox | None = None,
        offset: int = 0,
        key: Key | None = None,
    ) -> None:
        """Take a publication for everybody who is subscribed to `channel` now, but `exclude`.

        Args:
            channel: where it is published.
            text: the JSON of its message.
            exclude: who does not get it.
            offset: its place in the channel's history, 0 without one.
            key: what it is the latest of, where that matters.
        """
        if exclude is not None:
            self.drain(exclude)
        if not self.noted:
            self._start, self._bytes = self.number, 0
            asyncio.get_running_loop().call_soon(self.flush)
        self.number += 1
        self._bytes += len(text)
        self.noted.setdefault(channel, []).append(Publication(self.number, text, channel, offset, key))
        if exclude is not None:
            exclude.seen = self.number
        if self.number - self._start >= EARLY_COUNT or self._bytes >= EARLY_BYTES:
            self.flush()

    def drain(self, outbox: Outbox) -> None:
        """Give one outbox what is noted for it, ahead of the tick."""
        if self.noted and outbox.seen < self.number:
            publications = self._missing(outbox, self.noted)
            outbox.seen = self.number
            if publications:
                outbox.put_batch(Batch(publications))

    def flush(self) -> None:
        """Give everybody what is noted."""
        noted, self.noted = self.noted, {}
        if len(noted) == 1:
            ((channel, publications),) = noted.items()
            self._fan(channel.members, Batch(publications), noted)
        elif noted:
            for members, batch in self._group(noted):
                self._fan(members, batch, noted)

    def _fan(self, members: Iterable[Outbox], batch: Batch, noted: dict[Channel[Outbox], list[Publication]]) -> None:
        """The hot loop: one write for each subscriber."""
        start = self._start
        form: Form | None = None
        data: Any = None
        for outbox in list(members):
            transport = outbox.transport
            if outbox.seen > start:
                self._rest(outbox, noted)
                continue
            if transport.form is not form:
                form = transport.form
                data = batch.data(form)
            if not outbox.held:
                transport.write(data)
            elif batch.droppable:
                outbox.put_batch(batch)
            else:
                outbox.put(data)

    def _rest(self, outbox: Outbox, noted: dict[Channel[Outbox], list[Publication]]) -> None:
        publications = self._missing(outbox, noted)
        if publications:
            outbox.put_batch(Batch(publications))

    def _missing(self, outbox: Outbox, noted: dict[Channel[Outbox], list[Publication]]) -> list[Publication]:
        """What is noted for one outbox and it has not seen, in order."""
        mine = (self.everyone, *outbox.channels)
        lists = [noted[channel] for channel in mine if channel in noted and outbox in channel.members]
        found = [publication for part in lists for publication in part if publication.number > outbox.seen]
        return sorted(found, key=_number) if len(lists) > 1 else found

    def _group(self, noted: dict[Channel[Outbox], list[Publication]]) -> Iterable[tuple[list[Outbox], Batch]]:
        """Sort subscribers by the set of channels that have something for them."""
        sets: dict[Outbox, tuple[Channel[Outbox], ...]] = {}
        for channel in noted:
            for outbox in channel.members:
                sets[outbox] = (*sets.get(outbox, ()), channel)
        groups: dict[tuple[Channel[Outbox], ...], list[Outbox]] = {}
        for outbox, channels in sets.items():
            groups.setdefault(channels, []).append(outbox)
        for channels, members in groups.items():
            merged = sorted((publication for channel in channels for publication in noted[channel]), key=_number)
            yield members, Batch(merged)


def _number(publication: Publication) -> int:
    return publication.number
