"""What a check finds, and what is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from hubbub.core.origins import is_loopback

if TYPE_CHECKING:
    from hubbub.config import Settings
    from hubbub.node.hub import Hub

__all__ = ["Deployment", "Finding", "Level"]


class Level(Enum):
    """How bad it is: an error is unsafe or will fail, a warning may, and the others are to be known."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line; it never holds a secret.

    Args:
        level: how bad it is.
        check: which check found it, in a word.
        what: what there is, and why it matters.
        mend: the line that mends it.
    """

    level: Level
    check: str
    what: str
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """An app as it will be served.

    Args:
        settings: the environment's.
        host: where the server listens.
        workers: what `hubbub serve --workers` is given.
        concurrency: `WEB_CONCURRENCY`, which other servers go by.
        certfile: the certificate.
        keyfile: its key.
        timeout: seconds for anything that has to answer.
        hubs: the app's.
    """

    settings: Settings
    host: str = "127.0.0.1"
    workers: int = 1
    concurrency: int = 1
    certfile: Path | None = None
    keyfile: Path | None = None
    timeout: float = 5.0
    hubs: list[Hub] = field(default_factory=list)

    @property
    def production(self) -> bool:
        """Whether it is meant for others."""
        return self.settings.deploy_env == "production"

    @property
    def public(self) -> bool:
        """Whether other machines can reach it."""
        return self.host != "localhost" and not is_loopback(self.host)

    @property
    def shared(self) -> bool:
        """Whether a broker is between several nodes."""
        return any(hub.node.broker.shared for hub in self.hubs)
