"""`hubbub token`: a token for development, signed with the secret of the settings."""

from __future__ import annotations

import json
import secrets
import time
from typing import Annotated, Any

import typer

from hubbub.config import load_settings
from hubbub.core.identity import check_user_id
from hubbub.errors import ConfigError, RequestError
from hubbub.node.secret import Secret
from hubbub.node.tokens import sign

__all__ = ["token"]

OURS = {"sub", "iat", "exp"}
HOUR = 3600.0
LONGEST = 1e10


def token(
    user: Annotated[str, typer.Option(help="Whom the token signs in: `sub`.")],
    ttl: Annotated[float, typer.Option(min=1, max=LONGEST, help="How long it is good, in seconds.")] = HOUR,
    claim: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="A claim more; JSON, or else text; may be given again.")
    ] = [],  # noqa: B006
) -> None:
    """Print a token for a user, signed (HS256) with HUBBUB_SECRET or the secret kept for development."""
    try:
        secret = Secret(None, load_settings()).need()
        now = int(time.time())
        claims = {"sub": check_user_id(user), "iat": now, "exp": now + round(ttl), "jti": secrets.token_urlsafe()}
        typer.echo(sign(claims | dict(map(_read, claim)), secret))
    except ConfigError as error:
        raise _stop(str(error)) from None
    except RequestError as error:
        raise _stop(error.message) from None


def _read(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise _stop(f"--claim {text!r} is not NAME=VALUE.")
    if name in OURS:
        raise _stop(f"--claim {name} is set by --user and --ttl.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _stop(message: str) -> typer.Exit:
    typer.echo(f"hubbub: {message}", err=True)
    return typer.Exit(1)
