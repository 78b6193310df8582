"""Who may come in, asked before anything is done for a client: the doors ask here first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from time import monotonic
from typing import Literal

from hubbub.core.arrival import Arrival, Refusal
from hubbub.core.limits import Limits
from hubbub.core.origins import Origins, Verdict
from hubbub.core.rates import Rates
from hubbub.node.quotas import Quotas

__all__ = ["Entrance"]

logger = logging.getLogger("hubbub.entrance")

REMEMBERED = 256  # origins that were told about
SPACING = 1.0  # seconds from one line to the next
LONGEST = 200  # characters of a stranger's in a line

Header = tuple[bytes, bytes]


class Entrance:
    """Checks clients at the door, by what the head of their request says.

    Args:
        origins: whose pages may open a WebSocket.
        cookie: the name of the cookie that may sign in, None where any may.
        quotas: how many connections there may be; the usual ones by default.
        way: where the list of origins is, for people.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        origins: Origins,
        cookie: str | None,
        quotas: Quotas | None = None,
        *,
        way: Literal["environment", "code"] = "environment",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.origins = origins
        self.quotas = quotas or Quotas(Rates(), Limits())
        self.refused = 0
        self._cookie = cookie
        self._way = way
        self._clock = clock
        self._told: dict[str, None] = {}
        self._quiet_until = 0.0

    def check(self, arrival: Arrival) -> Refusal | None:
        """Let a client in with None, or say how it is turned away."""
        refusal = self._check_origin(arrival) or self.quotas.admit(arrival)
        if refusal is not None:
            self.refused += 1
        return refusal

    def read(self, headers: Iterable[Header], address: str | None, secure: bool) -> Arrival:
        """Read a request's headers (names in lower case) the way this entrance looks at them."""
        return Arrival.read(headers, address, secure, self._cookie)

    def _check_origin(self, arrival: Arrival) -> Refusal | None:
        verdict = self.origins.judge(arrival)
        if verdict is None:
            return None
        self._tell(verdict, arrival)
        return Refusal(HTTPStatus.FORBIDDEN, verdict.why)

    def _tell(self, verdict: Verdict, arrival: Arrival) -> None:
        """Log an origin once, and not more than one in `SPACING`: whoever is curious may try again."""
        said, now = ", ".join(arrival.origins)[:LONGEST], self._clock()
        if said in self._told or now < self._quiet_until:
            return
        self._quiet_until = now + SPACING
        self._told[said] = None
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        if verdict.origin is None:
            logger.warning("refused origin %s: %s", ascii(said) if said else "(none)", verdict.why)
        elif self._way == "code":
            logger.warning("refused origin %s: to allow it add it to Hub(origins=...)", verdict.origin)
        else:
            every = [*sorted(map(str, self.origins.allowed)), str(verdict.origin)]
            logger.warning("refused origin %s: to allow it set HUBBUB_ORIGINS=%s", verdict.origin, ",".join(every))
