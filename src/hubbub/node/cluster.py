"""The other nodes: who lives, what is said to them, what they are asked.

Rules of this file:
1. Alone, none of it costs anything: nothing is said and nobody is asked.
2. What is said in order gets there in order or not at all. What may be lost shows: a delta by its number, a node by
   its silence, an answer by its time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Coroutine
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from hubbub.core.bus import ALL, Alive, Answer, Ask, Bye, Joiner, Question, Runs, Said, Want, decode, encode, node_topic
from hubbub.core.bus import user_topic as topic_of
from hubbub.core.leases import Snapshot
from hubbub.errors import ConnectionClosed, RequestError, RequestTimeout, StoreError
from hubbub.node.answers import Answers
from hubbub.node.errands import Errands
from hubbub.node.interest import Interest

if TYPE_CHECKING:
    from hubbub.node.node import Node

__all__ = ["Cluster"]

logger = logging.getLogger("hubbub.cluster")

PULSE = 2.5
"""Seconds between two signs of life; who is silent for four of them is taken for dead."""
MEETING = 0.25
"""Seconds for a node that has just come to learn who else lives."""
PATIENCE = 1.0
"""Seconds for other nodes to answer."""
ASLEEP = 2 * PULSE
ASK_AGAIN = 1.0
"""Seconds until a node is asked once more for all that it answers for."""
LAST_WORDS = 1.0  # seconds for what is still to be said
MOST_SAID = 10_000
ID = 8  # characters of a node's id


class Cluster:
    """This node among the others.

    Args:
        node: this one.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.answers = Answers(node)
        self.reset()

    def reset(self) -> None:
        """Begin a life: another one than any before, alone."""
        self.id = secrets.token_urlsafe(6)
        self.ready = False
        self._peers: dict[str, int] = {}
        self._asked: dict[int, tuple[set[str], list[Answer], asyncio.Future[None]]] = {}
        self._number = 0
        self._pulse = 0.0
        self._met = 0.0
        self._beaten = monotonic()
        self._joiner = Joiner()
        self._saying: deque[tuple[str, Said]] = deque()
        self._introducing: set[str] = set()  # topics of nodes that are about to be told all
        self._wanted: dict[str, float] = {}  # when which node was asked for all
        self._deaf: set[str] = set()  # users of whom we could not be told
        self._errands = Errands(logger)
        self._speaker: asyncio.Task[None] | None = None
        self._users = Interest(self._follow_user, self._unfollow_user, self._has_user)

    @property
    def prefix(self) -> str:
        """What the ids of this node's connections begin with: they tell others where to find them."""
        return self.id if self._node.broker.shared else ""

    @property
    def peers(self) -> list[str]:
        """The other nodes that live."""
        return list(self._peers)

    @property
    def connections(self) -> int:
        """How many connections the other nodes had, last that they said."""
        return sum(self._peers.values())

    # Life

    async def open(self) -> None:
        """Join the others.

        Raises:
            StoreError: the broker is out of reach.
        """
        if self._node.broker.shared:
            await self._node.broker.follow(ALL)
            await self._node.broker.follow(node_topic(self.id))
            self.ready = True
            self._pulse = monotonic() + PULSE
            self._met = monotonic() + MEETING
            # Who takes no clients hears the others, and is none of them: nobody counts it, waits for it or misses it.
            self.say(ALL, Want(self.id) if self._node.guest else self._alive())
            for user_id in self._node.registry.users():
                self.user_came(user_id)

    async def close(self) -> None:
        """Leave them: the goodbye is the last that they hear."""
        if not self._node.guest:
            self.say(ALL, Bye(self.id))
        self.ready = False
        self._errands.stop()
        speaker = self._speaker
        if speaker is not None:
            await asyncio.wait([speaker], timeout=LAST_WORDS)
            speaker.cancel()

    def beat(self, now: float) -> None:
        """Say what has changed, that we live, and who does not, `now` in monotonic seconds."""
        slept, self._beaten = now - self._beaten, now
        if not self.ready:
            return
        leases = self._node.presence.leases
        if slept > ASLEEP and self._peers:
            logger.warning("this node stood still for %.0f s: it asks the others what it missed", slept)
            leases.forgive(slept)  # it is not they who were silent
            self._node.resumed()
        delta = leases.take_delta()
        if delta is not None:
            self.say(ALL, delta)
        if now >= self._pulse and not self._node.guest:
            self._pulse = now + PULSE
            self.say(ALL, self._alive())
            self._joiner.sweep()
            self._wanted = {node: at for node, at in self._wanted.items() if now - at < ASK_AGAIN}
            deaf, self._deaf = self._deaf, set()
            for user_id in filter(self._has_user, deaf):
                self.user_came(user_id)
        for dead in leases.expire(now):
            logger.warning("node %s is silent: taken for dead", dead)
            self._gone(dead)

    async def met(self) -> None:
        """Wait until the others had time to say that they live, if this node has just come."""
        left = self._met - monotonic()
        if self.ready and left > 0:
            await asyncio.sleep(left)

    def want(self, peer: str) -> None:
        """Ask another node for all that it answers for: some of it was missed; not while it may be on its way."""
        now = monotonic()
        if now - self._wanted.get(peer, -ASK_AGAIN) >= ASK_AGAIN:
            self._wanted[peer] = now
            self.say(node_topic(peer), Want(self.id))

    def resumed(self) -> None:
        """Ask all for what may have been missed."""
        self._pulse = 0.0
        self._wanted.clear()
        for peer in self._peers:
            self.want(peer)

    def _alive(self) -> Alive:
        return Alive(self.id, self._node.presence.leases.version, len(self._node.registry))

    def _gone(self, peer: str) -> None:
        self._peers.pop(peer, None)
        self._wanted.pop(peer, None)  # it may be back at once, and know nobody
        self._joiner.forget(peer)
        self._node.mirrors.gone(peer)
        for waiting, _, future in self._asked.values():
            waiting.discard(peer)
            if not waiting and not future.done():
                future.set_result(None)

    # Users

    def user_came(self, user_id: str) -> None:
        """Hear what is for a user: the first connection is here."""
        if self.ready and user_id not in self._users:
            self.spawn(self._users.begin(user_id))

    def user_went(self, user_id: str) -> None:
        """Hear no more of it: the last one has gone."""
        if self.ready and not self._has_user(user_id):
            self.spawn(self._users.end(user_id))

    def _has_user(self, user_id: str) -> bool:
        return self._node.registry.count_of_user(user_id) > 0

    async def _follow_user(self, user_id: str) -> None:
        self._deaf.add(user_id)
        await self._node.broker.follow(topic_of(user_id))
        self._deaf.discard(user_id)
        self._node.inbox.wake(user_id)  # what was stored elsewhere while nobody told us

    async def _unfollow_user(self, user_id: str) -> None:
        await self._node.broker.unfollow(topic_of(user_id))

    # Saying

    def say(self, topic: str, said: Said) -> None:
        """Say something soon, behind what was said before; lost if the broker is out of reach."""
        if not self.ready or len(self._saying) >= MOST_SAID:
            return
        self._saying.append((topic, said))
        if isinstance(said, Snapshot):
            self._introducing.add(topic)
        if self._speaker is None:
            self._speaker = asyncio.get_running_loop().create_task(self._speak(), context=Context())

    async def tell(self, topic: str, said: Said) -> int:
        """Say something now; how many nodes hear it, at least: 0 too while the broker is out of reach."""
        return await self._tell(topic, said) if self.ready else 0

    async def _tell(self, topic: str, said: Said) -> int:
        heard = 0
        self._number += 1
        try:
            for data in encode(said, self.id, self._number):
                heard = await self._node.broker.tell(topic, data)
        except StoreError as error:
            logger.debug("not said to %r: %s", topic, error)
            return 0
        return heard

    async def _speak(self) -> None:
        try:
            while self._saying:
                topic, said = self._saying.popleft()
                if isinstance(said, Snapshot):
                    self._introducing.discard(topic)
                try:
                    await self._tell(topic, said)
                except Exception:
                    logger.exception("%s was not said to %r", type(said).__name__, topic)
        finally:
            self._speaker = None

    # Asking

    async def ask(self, question: Question, *, only: str | None = None, timeout: float = PATIENCE) -> list[Any]:
        """Ask the other nodes, or one of them; the answers that came in time.

        Args:
            question: what.
            only: the one to ask.
            timeout: seconds to wait.

        Raises:
            RequestError: what one that was asked says.
        """
        await self.met()
        waiting = set(self._peers) if only is None else {only} & self._peers.keys()
        if not waiting:
            return []
        self._number += 1
        id, answers = self._number, list[Answer]()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[id] = waiting, answers, future
        try:
            await self.tell(ALL if only is None else node_topic(only), Ask(self.id, id, question))
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            logger.warning("no answer from %s to %s", ", ".join(sorted(waiting)), type(question).__name__)
        finally:
            del self._asked[id]
        for answer in answers:
            if answer.error is not None:
                raise RequestError(*answer.error)
        return [answer.value for answer in answers]

    async def everywhere(self, question: Question) -> int:
        """Do something on every node; the sum of what they say.

        Raises:
            RequestError: what one of them says; the others have done it.
        """
        try:
            here: int = await self.answers.give(question)
        except RequestError:
            await self.ask(question)
            raise
        total: int = sum(await self.ask(question), here)
        return total

    async def at(self, connection_id: str, question: Question, timeout: float = PATIENCE) -> Any:
        """Do something where a connection is; None if no node has it.

        Raises:
            RequestError: see `ask`.
        """
        if self._node.registry.get(connection_id) is not None:
            return await self.answers.give(question)
        answers = await self.ask(question, only=connection_id[:ID], timeout=timeout)
        return answers[0] if answers else None

    async def _answer(self, ask: Ask) -> None:
        try:
            answer = Answer(self.id, ask.id, await self.answers.give(ask.question))
        except RequestError as error:
            answer = Answer(self.id, ask.id, None, (error.code, error.message))
        except RequestTimeout as error:
            answer = Answer(self.id, ask.id, None, ("timeout", str(error)))
        except ConnectionClosed as error:
            answer = Answer(self.id, ask.id, None, ("closed", str(error)))
        self.say(node_topic(ask.node), answer)

    # Hearing

    def hear(self, data: bytes) -> None:
        """Take what another node says; what nobody of this version says is dropped, and nothing fails the broker."""
        if not self.ready:
            return  # who has not come yet, or has left
        try:
            said = self._joiner.join(decode(data))
            if said is not None:
                self._take(said)
        except ValueError as error:
            logger.warning("something was heard that no node says: %r", error)
        except Exception:
            logger.exception("something that another node said failed here")

    def _take(self, said: Said) -> None:
        leases, now = self._node.presence.leases, monotonic()
        match said:
            case Alive(self.id):
                pass
            case Alive(node, version, connections):
                self._peers[node] = connections
                if not leases.heard(node, version, now):
                    self.want(node)
            case Bye(node):
                leases.forget(node)
                self._gone(node)
            case Want() if self._node.guest:
                pass
            case Want(node):
                self._introduce(node_topic(node))
                if node not in self._peers:
                    self.want(node)
            case Runs(node) if node not in self._peers:
                pass  # it says so again when we hear that it lives
            case Ask():
                self.spawn(self._answer(said))
            case Answer():
                self._answered(said)
            case _:
                self.answers.take(said, now)

    def _introduce(self, topic: str) -> None:
        """Tell a node all that this one answers for, unless that is about to be said."""
        if topic not in self._introducing:
            self.say(topic, self._alive())
            self.say(topic, self._node.presence.leases.snapshot())
            self._node.mirrors.began(self._node.streams.channels, to=topic)

    def _answered(self, answer: Answer) -> None:
        waiting, answers, future = self._asked.get(answer.id, (set[str](), [], None))
        if answer.node in waiting and future is not None:
            waiting.remove(answer.node)
            answers.append(answer)
            if not waiting and not future.done():
                future.set_result(None)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something by the side; what fails is logged."""
        self._errands.spawn(work)
