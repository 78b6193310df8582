"""`hubbub serve module:app`: uvicorn with our protocol classes, and a shutdown in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubbub.cli.certificate import check_certificate
from hubbub.cli.exposure import check_lists, check_origins
from hubbub.config import load_settings
from hubbub.errors import ConfigError, HubbubError

if TYPE_CHECKING:
    from hubbub.servers.server import Server

__all__ = ["serve"]

TRIES = 20
LAST_PORT = 65535
WHERE = "Give module:attribute, for example main:app for `app` in main.py, and run this where it can be imported."
NOT_THE_APP = {"hubbub", "uvicorn", "importlib"}


def serve(
    app: Annotated[str, typer.Argument(help="Where the app is: module:attribute, for example main:app.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=LAST_PORT, help="Port to listen on; PORT or 5000 by default, 0 for any.")
    ] = None,
    next_free_port: Annotated[bool, typer.Option(help="Take the next free port if this one is busy.")] = False,
    reload: Annotated[bool, typer.Option(help="Restart when a Python file changes (for development).")] = False,
    access_log: Annotated[bool, typer.Option(help="Log every HTTP request.")] = False,
    drain_time: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds to send clients to other nodes at SIGTERM; 30 with a broker, else 0."),
    ] = None,
    ssl_certfile: Annotated[Path | None, typer.Option(help="Certificate for HTTPS and WSS, in PEM.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="Private key of the certificate, not encrypted.")] = None,
) -> None:
    """Serve an ASGI app and the hubs inside it."""
    try:
        settings = load_settings()
        check_certificate(ssl_certfile, ssl_keyfile)
        proxies = check_lists(settings)
    except ConfigError as error:
        raise _stop(str(error)) from None
    sys.path.insert(0, os.getcwd())
    with _listen(host, settings.port if port is None else port, next_free_port) as listener:
        try:
            from hubbub.servers.server import Server, configure
        except ModuleNotFoundError as error:
            raise _stop(f'{error.name} is not installed: pip install "hubbub[server]"') from None
        files = {"ssl_certfile": ssl_certfile, "ssl_keyfile": ssl_keyfile}
        config = configure(app, proxies=proxies, reload=reload, access_log=access_log, **files)
        banner = _Banner(app, listener, tls=ssl_certfile is not None, env=settings.deploy_env)
        _run(Server(config, started=banner.show, drain=drain_time), listener, app, settings.deploy_env)


def _run(server: Server, listener: socket.socket, app: str, env: str) -> None:
    if server.config.should_reload:
        from uvicorn.supervisors import ChangeReload

        ChangeReload(server.config, target=server.run, sockets=[listener]).run()
        return
    _import(app)
    _try_origins(listener.getsockname()[0], env)
    _try_databases()
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if not server.started:
        raise _stop("The app failed to start; the lines above say why.")


def _import(app: str) -> None:
    """Import the app now, so that a mistake in its name is one line, and a mistake in it its own traceback."""
    from uvicorn.importer import ImportFromStringError, import_from_string

    module = app.partition(":")[0]
    try:
        import_from_string(app)
    except ImportFromStringError as error:
        raise _stop(f"{error} {WHERE}") from None
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise _failed(module, error) from None
        raise _stop(f"Could not import module {error.name!r}. {WHERE}") from None
    except Exception as error:
        raise _failed(module, error) from None


def _try_origins(host: str, env: str) -> None:
    """Say that browsers will be refused, before they are."""
    from hubbub.node.hub import Hub

    try:
        warning = check_origins(Hub.all_made(), host, env)
    except ConfigError as error:
        raise _stop(str(error)) from None
    if warning is not None:
        typer.echo(f"hubbub: {warning}", err=True)


def _try_databases() -> None:
    """Open the databases of the app's hubs once, so that one that is down is one line and not a traceback."""
    from hubbub.node.hub import Hub

    async def open_and_close() -> None:
        for hub in Hub.all_made():
            async with hub.running():
                pass

    try:
        asyncio.run(open_and_close())
    except HubbubError as error:
        raise _stop(str(error)) from None


def _failed(module: str, error: Exception) -> typer.Exit:
    """Show what went wrong inside the app's module, without the way that led there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals["__name__"].partition(".")[0] in NOT_THE_APP:
        trace = trace.tb_next
    traceback.print_exception(error.with_traceback(trace))
    return _stop(f"Importing {module} failed, as shown above.")


def _listen(host: str, port: int, next_free: bool) -> socket.socket:
    """Bind the port, or the next free one where that is wanted."""
    last = min(port + TRIES, LAST_PORT) if next_free and port else port
    for candidate in range(port, last + 1):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(0)
        except OSError as error:
            listener.close()
            failure = error
        else:
            listener.set_inheritable(True)
            return listener
    way = " Try another --port, or --next-free-port." if failure.errno == errno.EADDRINUSE else ""
    raise _stop(f"Cannot listen on {host}:{port}: {failure.strerror or failure}.{way}")


def _stop(message: str) -> typer.Exit:
    typer.echo(f"hubbub: {message}", err=True)
    return typer.Exit(1)


class _Banner:
    """The one thing `serve` prints: where everything is."""

    def __init__(self, app: str, listener: socket.socket, *, tls: bool, env: str) -> None:
        self._app = app
        self._address = listener.getsockname()[:2]
        self._tls = tls
        self._env = env

    def show(self) -> None:
        """Print it, with the paths of the hubs that run."""
        from hubbub.node.hub import Hub

        host, port = self._address
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        http, ws = ("https", "wss") if self._tls else ("http", "ws")
        lines = [f"hubbub serves {self._app} ({self._env})", f"  HTTP       {http}://{where}"]
        for hub in Hub.all_running():
            lines.append(f"  WebSocket  {ws}://{where}{hub.path}")
            lines.append(f"  Test page  {http}://{where}{hub.path.rstrip('/')}/client")
            lines += [f"  {role.capitalize():<10} {database}" for role, database in hub.node.databases.items()]
        lines.append("  Stop with Ctrl+C")
        print("\n".join(lines), flush=True)


logging.getLogger("hubbub").addHandler(logging.NullHandler())
