"""Are the secrets there, the same everywhere, and hard to guess?"""

from __future__ import annotations

from collections.abc import Iterator

from hubbub.cli.checks.finding import Deployment, Finding, Level
from hubbub.errors import ConfigError

__all__ = ["check_api_key", "check_secret", "is_weak"]

SECRET, API_KEY = "HUBBUB_SECRET=$(openssl rand -hex 32)", "HUBBUB_API_KEY=$(openssl rand -hex 32)"
FEW = 10
"""Different characters of a text that nobody rolled dice for; 32 hexadecimal digits have fewer once in 10,000 times."""
WORDS = ("secret", "password", "changeme", "change-me", "change_me", "example", "hubbub", "default", "12345678")


def check_secret(deployment: Deployment) -> Iterator[Finding]:
    """Look at what signs tokens and tickets."""
    level = Level.ERROR if deployment.production else Level.WARNING
    for hub in deployment.hubs:
        gate, secret = hub.node.gate, hub.node.gate.secret
        try:
            found = secret.find()
        except ConfigError as error:
            yield Finding(Level.ERROR, "secret", f"{hub.path}: {error}", SECRET)
            continue
        if found is not None and secret.file is None and is_weak(found.decode("utf-8", "replace")):
            yield Finding(
                level, "secret", f"{hub.path}: the secret can be guessed, and with it any user's token", SECRET
            )
        elif deployment.production and found is None:
            what = "tokens cannot be checked, nor tickets be issued" if gate.needs_secret else "there are no tickets"
            level = Level.ERROR if gate.needs_secret else Level.WARNING
            yield Finding(level, "secret", f"{hub.path}: no secret is set, so {what}", SECRET)
        elif secret.file is not None and hub.node.broker.shared:
            why = "each node would make its own, and refuse the tokens and tickets of the others"
            yield Finding(level, "secret", f"{hub.path}: several nodes and no secret: {why}", SECRET)
        elif secret.file is not None:
            yield Finding(Level.INFO, "secret", f"{hub.path}: the secret for development, in {secret.file}")
        else:
            yield Finding(Level.OK, "secret", f"{hub.path}: it is set")


def check_api_key(deployment: Deployment) -> Iterator[Finding]:
    """Look at what opens the HTTP API."""
    given = deployment.settings.hubbub_api_key
    if given is None:
        return
    secret = deployment.settings.hubbub_secret
    level = Level.ERROR if deployment.production else Level.WARNING
    if is_weak(given.get_secret_value()):
        yield Finding(level, "api key", "the key can be guessed, and who has it may send to every user", API_KEY)
    elif secret is not None and secret.get_secret_value() == given.get_secret_value():
        yield Finding(level, "api key", "it is the secret too: who publishes could sign anybody's token", API_KEY)
    else:
        yield Finding(Level.OK, "api key", "it is set")


def is_weak(text: str) -> bool:
    """Whether a text is one that somebody typed or copied, rather than rolled dice for."""
    return len(set(text)) < FEW or any(word in text.lower() for word in WORDS)
