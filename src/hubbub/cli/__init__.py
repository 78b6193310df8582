"""The `hubbub` command; `serve`, `doctor`, `check`, `connect`, `migrate`, `token` are each in the file of that name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

__all__ = ["app", "main"]

EXTRA = {"typer", "rich", "prompt_toolkit", "uvicorn", "httptools"}


def main() -> None:
    """Run `hubbub` with the arguments of this process."""
    try:
        app()()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        sys.exit(f'hubbub: {missing} is not installed: pip install "hubbub[server]"')


def app() -> typer.Typer:
    """Put the command together."""
    # Imported late, so that a missing extra is one line and not a traceback.
    import typer

    from hubbub.cli.check import check
    from hubbub.cli.connect import connect
    from hubbub.cli.doctor import doctor
    from hubbub.cli.migrate import migrate
    from hubbub.cli.serve import serve
    from hubbub.cli.token import token

    hubbub = typer.Typer(
        name="hubbub",
        help="A live connection to your users: serve an app with a hub, check it, talk to it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (serve, doctor, check, connect, migrate, token):
        hubbub.command()(command)
    return hubbub
