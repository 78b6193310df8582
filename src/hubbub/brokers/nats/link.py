"""The connection to NATS: it comes back by itself, and asks and answers on one inbox.

Rules of this file:
1. Commands go out in the order in which they were given. What was not answered when the connection broke is answered
   with `Unanswered`, never sent again from here: who asked knows whether it may be.
2. After a break all subscriptions are made anew before `restored` is called, and what was told meanwhile is lost.
3. Messages are handed on in the step in which they were read: there are no queues between, and so none to overflow.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import Any

import msgspec
from nats.errors import Error, MaxPayloadError

from hubbub.brokers.nats.address import Address
from hubbub.brokers.nats.wire import CONNECT, Handler, Message, Subscription, Wire
from hubbub.errors import StoreError, StoreUnavailable

__all__ = ["ATTEMPT", "INFO", "PATIENCE", "Away", "Link", "Nobody", "Refused", "Unanswered"]

logger = logging.getLogger("hubbub.broker")

PATIENCE = 10.0
"""Seconds for which a call waits for NATS to be well again: a cluster chooses a new leader within them. Where the
connection was lost longer ago than that, it hardly waits."""
ATTEMPT = 2.5
"""Seconds for one answer."""
PULSE = 5.0
"""Seconds from one look at JetStream to the next; while it is not well, `SOON`."""
SOON = 1.0
OLDEST = (2, 11)
UNAVAILABLE = 503
INFO = "$JS.API.INFO"
PAUSES = (0.05, 1.0)
"""Seconds between attempts, by chance: a server that comes back is not asked by all nodes at once."""
FAILURES = (OSError, Error, TimeoutError)


class Unanswered(StoreUnavailable):
    """Nobody answered, in time or at all: what was asked for may be done or not."""


class Away(Unanswered):
    """There is no connection: it was not said."""


class Nobody(Unanswered):
    """Nobody listens there, as far as the server knows: it was not done."""


class Refused(StoreError):
    """JetStream said no; `code` is its `err_code`."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


class Link:
    """One node's connection.

    Args:
        address: where to.
        restored: called after a break, when all is as before but for what was missed.
    """

    def __init__(self, address: Address, restored: Callable[[], None]) -> None:
        self._address = address
        self._restored = restored
        self._subscriptions: dict[Subscription, None] = {}
        self._answers: dict[int, Callable[[Message | StoreError], None]] = {}
        self._numbers = 0
        self._inbox = f"_INBOX.{secrets.token_hex(11)}."
        self._up = asyncio.Event()
        self._answering = True
        self._lost_at = 0.0
        self._wire: Wire
        self._task: asyncio.Task[None] | None = None
        self._health: asyncio.Task[None] | None = None

    @property
    def healthy(self) -> bool:
        """Whether it is connected, and JetStream answers and has a leader, as far as is known."""
        return self._up.is_set() and self._answering

    @property
    def gone(self) -> bool:
        """Whether the connection was lost so long ago that nobody waits for it any more."""
        return not self._up.is_set() and monotonic() - self._lost_at > PATIENCE

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreUnavailable: no server takes the connection.
        """
        self._up, self._lost = asyncio.Event(), asyncio.Event()  # for this loop
        self._subscriptions[Subscription(f"{self._inbox}*", self._answered)] = None
        await self._dial()
        version = self._wire.connected_server_version
        if (version.major, version.minor) < OLDEST:
            await self._wire.abandon()
            raise StoreError(f"{self._address.place} is too old: Hubbub needs NATS {OLDEST[0]}.{OLDEST[1]} or later.")
        self._task = asyncio.get_running_loop().create_task(self._stay(), context=Context())
        self._health = asyncio.get_running_loop().create_task(self._check_health(), context=Context())

    async def close(self) -> None:
        """Send what is to be sent, and go."""
        if self._task is None or self._health is None:
            return
        if self.healthy:
            with suppress(StoreError):
                await self.ask(INFO, b"", timeout=CONNECT)
        for task in (self._task, self._health):
            task.cancel()
        await asyncio.wait([self._task, self._health])
        self._task = self._health = None
        self._up.clear()
        await self._wire.abandon()
        self._fail("is closed")

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Listen; what the server gets of this connection from here on, it gets later than this."""
        wire = await self._connected()
        subscription = Subscription(subject, handler)
        self._subscriptions[subscription] = None
        try:
            await self._send(wire.listen(subscription))
        except BaseException:
            await self.unsubscribe(subscription)
            raise
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Listen no more, from now on."""
        self._subscriptions.pop(subscription, None)
        if self._up.is_set():
            with suppress(*FAILURES):
                await self._wire.leave(subscription)

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Say something; it may not arrive."""
        wire = await self._connected()
        await self._send(wire.publish(subject, data, reply, headers))

    async def ask(
        self, subject: str, data: bytes, *, headers: dict[str, str] | None = None, timeout: float = ATTEMPT
    ) -> Message:
        """Ask once; the first answer.

        Raises:
            Unanswered: there was none.
        """
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def answer(message: Message | StoreError) -> None:
            if future.done():
                return
            if isinstance(message, StoreError):
                future.set_exception(message)
            else:
                future.set_result(message)

        message: Message = await self._ask(subject, data, headers, timeout, future, answer)
        if message.status == b"503":
            raise Nobody(f"{self._address.place} has nobody for {subject} now: try again later.")
        return message

    async def collect(self, subject: str, data: bytes) -> list[Message]:
        """Ask for several answers; all of them, the last is the one with a status."""
        future: asyncio.Future[list[Message]] = asyncio.get_running_loop().create_future()
        messages: list[Message] = []

        def answer(message: Message | StoreError) -> None:
            if future.done():
                return
            if isinstance(message, StoreError):
                future.set_exception(message)
                return
            messages.append(message)
            if message.status:
                future.set_result(messages)

        await self._ask(subject, data, None, ATTEMPT, future, answer)
        if messages[-1].status == b"503":
            raise Nobody(f"{self._address.place} has nobody for {subject} now: try again later.")
        return messages

    async def api(self, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream, more than once if need be; what it is asked for must do no harm when done twice.

        Raises:
            Refused: it said no.
            StoreUnavailable: it did not answer.
        """
        data = b"" if body is None else msgspec.json.encode(body)
        last: Unanswered | None = None
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        return self.read((await self.ask(f"$JS.API.{name}", data)).data)
                    except Unanswered as error:
                        last = error
                    await self.pause()
                    if self.gone:
                        raise last
        except TimeoutError:
            if isinstance(last, Nobody):
                raise StoreUnavailable(f"{self._address.place} has no JetStream, or no leader for it now.") from None
            raise StoreUnavailable(str(last or f"{self._address.place} does not answer.")) from None

    async def settle(self) -> None:
        """Wait until the server has done what it was told before.

        Raises:
            StoreUnavailable: it does not answer.
        """
        await self.api("INFO")

    def read(self, data: bytes) -> dict[str, Any]:
        """What JetStream answered.

        Raises:
            Refused: it said no.
            Unanswered: nobody can understand it, or it says that it will pass, as while a cluster elects a leader.
        """
        try:
            answer = msgspec.json.decode(data, type=dict[str, Any])
            error = answer.get("error")
            refusal = None if error is None else (str(error["description"]), int(error.get("err_code", 0)))
            passing = error is not None and error.get("code") == UNAVAILABLE
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError):
            raise Unanswered(f"{self._address.place} gave an answer that is none.") from None
        if refusal is not None and passing:
            raise Unanswered(f"{self._address.place} cannot now: {refusal[0]}.")
        if refusal is not None:
            raise Refused(f"{self._address.place} refused: {refusal[0]}.", refusal[1])
        return answer

    async def pause(self) -> None:
        """Wait a moment before the next attempt."""
        await asyncio.sleep(random.uniform(PAUSES[0], PAUSES[0] * 4))

    # Inside

    async def _ask(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None,
        timeout: float,
        future: asyncio.Future[Any],
        answer: Callable[[Message | StoreError], None],
    ) -> Any:
        wire = await self._connected()
        self._numbers = number = self._numbers + 1
        self._answers[number] = answer
        try:
            async with asyncio.timeout(timeout):
                await wire.publish(subject, data, f"{self._inbox}{number}", headers)
                answered = await future
        except TimeoutError:
            self._answering = False
            raise Unanswered(f"{self._address.place} does not answer.") from None
        except MaxPayloadError:
            raise StoreError(
                f"{self._address.place} does not take so large a message: raise its max_payload."
            ) from None
        except (OSError, Error) as error:
            raise Unanswered(f"{self._address.place} cannot be asked: {error}") from None
        finally:
            del self._answers[number]
        return answered

    def _answered(self, message: Message) -> None:
        number = message.subject[len(self._inbox) :]
        answer = self._answers.get(int(number)) if number.isdecimal() else None
        if answer is not None:
            answer(message)

    async def _connected(self) -> Wire:
        if not self._up.is_set():
            if self._task is None:
                raise StoreUnavailable(f"{self._address.place} is not connected.")
            try:
                async with asyncio.timeout(PAUSES[0] if self.gone else ATTEMPT):
                    await self._up.wait()
            except TimeoutError:
                raise Away(f"{self._address.place} is out of reach.") from None
        return self._wire

    async def _send(self, command: Any) -> None:
        try:
            async with asyncio.timeout(ATTEMPT):
                await command
        except MaxPayloadError:
            raise StoreError(
                f"{self._address.place} does not take so large a message: raise its max_payload."
            ) from None
        except FAILURES as error:
            raise Unanswered(f"{self._address.place} takes nothing: {error!r}") from None

    async def _stay(self) -> None:
        """Connect again whenever the connection is lost."""
        while True:
            await self._lost.wait()
            self._up.clear()
            self._lost_at = monotonic()
            self._fail("lost the connection")
            logger.warning("%s: the connection is lost", self._address.place)
            while not self._up.is_set():
                await asyncio.sleep(random.uniform(*PAUSES))
                with suppress(StoreUnavailable):
                    await self._dial()
            logger.warning("%s: connected again", self._address.place)
            self._restored()

    async def _check_health(self) -> None:
        """See whether JetStream is well: without traffic nobody else does, and a cluster may answer without leader."""
        well = True
        while True:
            await asyncio.sleep(PULSE if self._answering else SOON)
            if not self._up.is_set():
                continue
            error: StoreError | None = None
            try:
                self.read((await self.ask(INFO, b"")).data)
            except StoreError as failure:
                error = failure
            self._answering = error is None
            if error is not None and well:
                logger.warning("publications have to wait: %s", error)
            elif error is None and not well:
                logger.warning("%s: publications are stored again", self._address.place)
            well = error is None

    def _fail(self, why: str) -> None:
        for answer in list(self._answers.values()):
            answer(Unanswered(f"{self._address.place} {why}."))

    async def _dial(self) -> None:
        failure: BaseException | None = None
        for server in random.sample(self._address.servers, len(self._address.servers)):
            self._wire = wire = Wire(self._lose)
            self._lost.clear()
            try:
                async with asyncio.timeout(CONNECT):
                    await wire.dial(server, self._address)
                    for subscription in (subscriptions := list(self._subscriptions)):
                        await wire.listen(subscription)
                    for ended in (each for each in subscriptions if each not in self._subscriptions):
                        await wire.leave(ended)
            except FAILURES as error:
                failure = wire.failure or error
            else:
                if not self._lost.is_set():
                    self._answering = True
                    self._up.set()
                    return
            await wire.abandon()
        raise StoreUnavailable(f"{self._address.place} cannot be reached: {failure or 'no answer'}") from None

    def _lose(self, wire: Wire) -> None:
        if self._wire is wire:
            self._up.clear()
            self._lost.set()
