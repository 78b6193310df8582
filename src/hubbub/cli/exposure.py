"""What `hubbub serve` asks before others can reach it: whose pages may connect, and whose word counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubbub.core.forwarded import Proxies
from hubbub.core.origins import Origins, is_loopback
from hubbub.errors import ConfigError
from hubbub.node.broker import make_broker
from hubbub.node.database import databases
from hubbub.outbox.tables import find_table

if TYPE_CHECKING:
    from hubbub.config import Settings
    from hubbub.node.hub import Hub

__all__ = ["check_lists", "check_origins"]

PATIENCE = 5.0  # seconds; nothing is opened here
WAY = "set HUBBUB_ORIGINS to where your pages come from, like HUBBUB_ORIGINS=https://example.com"


def check_lists(settings: Settings) -> Proxies:
    """Read the lists and the addresses of the settings; the trusted proxies.

    Raises:
        ConfigError: one has something in it that it cannot; the message names the variable.
    """
    try:
        make_broker(settings.hubbub_broker_url, databases(settings, PATIENCE)["archive"])
    except ConfigError as error:
        raise ConfigError(f"HUBBUB_BROKER_URL: {error}") from None
    try:
        if settings.hubbub_outbox_url is not None:
            find_table(settings.hubbub_outbox_url)
    except ConfigError as error:
        raise ConfigError(f"HUBBUB_OUTBOX_URL: {error}") from None
    try:
        Origins(settings.origins)
    except ConfigError as error:
        raise ConfigError(f"HUBBUB_ORIGINS: {error}") from None
    try:
        return Proxies(settings.trusted_proxies)
    except ConfigError as error:
        raise ConfigError(f"HUBBUB_TRUSTED_PROXIES: {error}") from None


def check_origins(hubs: list[Hub], host: str, env: str) -> str | None:
    """Find hubs that no page could connect to; what to warn of.

    Args:
        hubs: those of the app.
        host: where the server listens.
        env: `DEPLOY_ENV`.

    Raises:
        ConfigError: there is one in production.
    """
    closed = ", ".join(sorted(hub.path for hub in hubs if not hub.node.entrance.origins.given))
    if not closed:
        return None
    if env == "production":
        raise ConfigError(f"No origins are set for {closed}, and this is production: {WAY}.")
    if host == "localhost" or is_loopback(host):
        return None
    return f"no origins are set for {closed}, so on {host} every browser is refused: {WAY}."
