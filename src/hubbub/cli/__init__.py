"""The `hubbub` command: `serve`, `check` and `connect`. Each is one function in the file of its name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

__all__ = ["main"]

EXTRA = {"typer", "rich", "prompt_toolkit", "uvicorn", "httptools"}


def main() -> None:
    """Run `hubbub` with the arguments of this process."""
    try:
        app = _app()
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        sys.exit(f'hubbub: {error.name} is not installed; pip install "hubbub[server]"')
    app()


def _app() -> typer.Typer:
    # Imported late, so that a missing extra is one line and not a traceback.
    import typer

    from hubbub.cli.check import check
    from hubbub.cli.connect import connect
    from hubbub.cli.serve import serve

    app = typer.Typer(
        name="hubbub",
        help="A live connection to your users: serve an app with a hub, check it, talk to it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (serve, check, connect):
        app.command()(command)
    return app
