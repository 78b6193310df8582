"""The app that is served: imported, and its hubs tried, so that what is wrong is said before anything listens."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING

import typer

from hubbub.cli.exposure import check_origins
from hubbub.errors import ConfigError

if TYPE_CHECKING:
    from hubbub.node.hub import Hub

__all__ = ["import_app", "load_app"]

WHERE = "Give module:attribute, for example main:app for `app` in main.py, and run this where it can be imported."
NOT_THE_APP = {"hubbub", "uvicorn", "importlib"}


def load_app(app: str, host: str, env: str, *, workers: int = 1, warn: bool = True) -> None:
    """Import the app, and look whether its hubs can run.

    Args:
        app: where it is: `module:attribute`.
        host: where the server listens.
        env: `DEPLOY_ENV`.
        workers: processes that serve it.
        warn: say what is not wrong but should be known.

    Raises:
        HubbubError: it cannot be served; the message is one line.
    """
    import_app(app)
    from hubbub.node.hub import Hub

    hubs = Hub.all_made()
    if alone := [hub.path for hub in hubs if not hub.node.broker.shared and workers > 1]:
        raise ConfigError(
            f"The hub at {alone[0]} has broker_url='memory://', which is for one process, and --workers is {workers}: "
            "leave it out, or give a URL like nats://host:4222."
        )
    warning = check_origins(hubs, host, env)
    if warning is not None and warn:
        typer.echo(f"hubbub: {warning}", err=True)
    loose = [hub.path for hub in hubs if not hub.attached]
    if loose and warn:
        mend = "hub.attach(app), or app = hub.wrap(app), where clients are to reach it."
        typer.echo(f"hubbub: the hub for {loose[0]} is attached to no app, and takes no clients: {mend}", err=True)
    asyncio.run(_open_and_close(hubs))


def import_app(app: str) -> None:
    """Import the app now, so that a mistake in its name is one line, and a mistake in it its own traceback.

    Raises:
        ConfigError: it cannot be imported.
    """
    from uvicorn.importer import ImportFromStringError, import_from_string

    module = app.partition(":")[0]
    try:
        found = import_from_string(app)
    except ImportFromStringError as error:
        raise ConfigError(f"{error} {WHERE}") from None
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise _failed(module, error) from None
        raise ConfigError(f"Could not import module {error.name!r}. {WHERE}") from None
    except Exception as error:
        raise _failed(module, error) from None
    if not callable(found):
        from hubbub.node.hub import Hub

        mend = "Give the app that it is attached to." if isinstance(found, Hub) else WHERE
        raise ConfigError(f"{app} is no ASGI app, but a {type(found).__name__}. {mend}")


async def _open_and_close(hubs: list[Hub]) -> None:
    """Open the databases of the app's hubs once, so that one that is down is one line and not a traceback."""
    for hub in hubs:
        async with hub.running():
            pass


def _failed(module: str, error: Exception) -> ConfigError:
    """Show what went wrong inside the app's module, without the way that led there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals["__name__"].partition(".")[0] in NOT_THE_APP:
        trace = trace.tb_next
    traceback.print_exception(error.with_traceback(trace))
    return ConfigError(f"Importing {module} failed, as shown above.")
