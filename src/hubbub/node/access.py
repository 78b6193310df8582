"""Who may do what on a channel: the app's functions by pattern, `doc:{id}`; the one door for everything.

Rules of this file:
1. The first pattern that fits decides, in the order they were declared. Where none fits, there is no such channel if
   a pattern names the namespace; if none does, the namespace's options decide.
2. A function answers yes, no, or yes for a time (`Lease`). Whatever else it does, raising included, is no.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import msgspec

from hubbub.core.channels import check_name
from hubbub.errors import ConfigError, RequestError
from hubbub.node.routing import underlying

if TYPE_CHECKING:
    from hubbub.node.connection import Connection

__all__ = ["Access", "Action", "Lease", "Rules"]

logger = logging.getLogger("hubbub.access")

Action = Literal["subscribe", "publish", "history", "presence", "cancel"]
PARAMETER = re.compile(r"\{(\w+)\}")
LONGEST = 65536  # bytes of a pattern: the limit is for names, and not known here
FORBIDDEN = "You may not do that on this channel."


@dataclass(frozen=True, slots=True)
class Access:
    """What somebody wants of a channel.

    Args:
        action: to subscribe, publish, read the history (recovery and archive too) or presence, or cancel a stream.
        channel: the channel's name.
        connection: who asks.
    """

    action: Action
    channel: str
    connection: Connection

    @property
    def user_id(self) -> str | None:
        """The user who asks, None while anonymous."""
        return self.connection.user_id


@dataclass(frozen=True, slots=True)
class Lease:
    """Yes for now.

    Args:
        recheck: seconds after which a subscriber is asked about again.
    """

    recheck: float


Answer = bool | Lease
Rule = Callable[..., Answer | Awaitable[Answer]]


class Rules:
    """The app's functions, by the channels they decide about."""

    def __init__(self) -> None:
        self._rules: list[tuple[re.Pattern[str], Rule, dict[str, Any]]] = []
        self._guarded: set[str] = set()

    def add(self, pattern: str, function: Rule) -> None:
        """Let `function(access, **parameters)` decide about the channels that fit `pattern`.

        Args:
            pattern: a channel's name with parameters in braces, each of which is what stands between two colons.
            function: plain or a coroutine function; its annotations say what the parameters are.

        Raises:
            ConfigError: the function does not take the parameters of the pattern, or no channel has such a name.
        """
        try:
            check_name(PARAMETER.sub("x", pattern), LONGEST)
        except RequestError as error:
            raise ConfigError(f"{pattern!r} fits no channel: {error.message} Parameters are in braces.") from None
        names = PARAMETER.findall(pattern)
        name = underlying(function).__qualname__
        given = [p.name for p in inspect.signature(function).parameters.values()][1:]
        if sorted(names) != sorted(given):
            raise ConfigError(f"{name} must take (access, {', '.join(names)}), as {pattern!r} has it.")
        hints = get_type_hints(underlying(function))
        self._guarded.add(pattern.partition(":")[0])
        parts = PARAMETER.split(pattern)  # text and names, in turns
        parts = [rf"(?P<{part}>[^:]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)]
        self._rules.append((re.compile("".join(parts)), function, {each: hints.get(each, str) for each in names}))

    def guards(self, namespace: str) -> bool:
        """Whether a pattern is for channels of this namespace, or of any."""
        return any(name == namespace or PARAMETER.match(name) for name in self._guarded)

    def check(self, known: Callable[[str], bool]) -> None:
        """Refuse a pattern that would never be asked: what it should guard would be open.

        Args:
            known: whether there are channels of this namespace.

        Raises:
            ConfigError: a pattern is of a namespace that nobody declared.
        """
        for name in self._guarded:
            if not PARAMETER.match(name) and not known(name):
                raise ConfigError(f'@hub.channel has a pattern for {name!r}, and there is no hub.namespace("{name}").')

    def find(self, channel: str) -> tuple[Rule, dict[str, Any]] | None:
        """The function that decides about a channel, and its parameters.

        Raises:
            RequestError: `bad_channel`: a parameter is not of its type, or no pattern of its namespace fits.
        """
        for pattern, rule, types in self._rules:
            match = pattern.fullmatch(channel)
            if match is not None:
                return rule, _convert(match.groupdict(), types)
        if channel.partition(":")[0] in self._guarded:
            raise _no_such()
        return None

    async def ask(self, access: Access) -> Lease | None:
        """Let the app decide; the lease, if it gave one. Channels without a rule are free.

        Raises:
            RequestError: `forbidden`, or what the function raised; `bad_channel`.
        """
        found = self.find(access.channel)
        if found is None:
            return None
        rule, parameters = found
        try:
            answer = rule(access, **parameters)
            if inspect.isawaitable(answer):
                answer = await answer
        except RequestError:
            raise
        except Exception as error:
            logger.error("the rule for %r failed", access.channel, exc_info=error)
            raise RequestError("forbidden", FORBIDDEN, "channel") from None
        if isinstance(answer, Lease):
            return answer
        if answer is not True:
            raise RequestError("forbidden", FORBIDDEN, "channel")
        return None


def _convert(values: dict[str, str], types: dict[str, Any]) -> dict[str, Any]:
    try:
        return {name: msgspec.convert(value, types[name], strict=False) for name, value in values.items()}
    except msgspec.ValidationError:
        raise _no_such() from None


def _no_such() -> RequestError:
    return RequestError("bad_channel", "There is no such channel.", "channel")
