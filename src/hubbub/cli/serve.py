"""`hubbub serve module:app`: uvicorn with our protocol classes, and a shutdown in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubbub.cli.application import load_app
from hubbub.cli.banner import Banner
from hubbub.cli.certificate import check_certificate
from hubbub.cli.exposure import check_lists
from hubbub.cli.port import LAST_PORT, Port, listen
from hubbub.config import load_settings
from hubbub.errors import ConfigError, HubbubError

if TYPE_CHECKING:
    from hubbub.cli.worker import Orders
    from hubbub.config import Settings
    from hubbub.servers.server import Server

__all__ = ["serve"]


def serve(
    app: Annotated[str, typer.Argument(help="Where the app is: module:attribute, for example main:app.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=LAST_PORT, help="Port to listen on; PORT or 5000 by default, 0 for any.")
    ] = None,
    next_free_port: Annotated[bool, typer.Option(help="Take the next free port if this one is busy.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve; SIGHUP replaces them one by one.")] = 1,
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
        if workers > 1:
            _check_workers(workers, settings, reload=reload)
        sys.path.insert(0, os.getcwd())
        with listen(host, settings.port if port is None else port, next_free_port) as listener:
            try:
                from hubbub.servers.server import Server, configure
            except ModuleNotFoundError as error:
                raise ConfigError(f'{error.name} is not installed: pip install "hubbub[server]"') from None
            env = settings.deploy_env
            banner = Banner(app, listener.getsockname()[:2], tls=ssl_certfile is not None, env=env)
            options: dict[str, Any] = {"access_log": access_log}
            options |= {"ssl_certfile": _path(ssl_certfile), "ssl_keyfile": _path(ssl_keyfile)}
            if workers > 1:
                from hubbub.cli.worker import Orders

                orders = Orders(app=app, host=host, env=env, workers=workers, drain=drain_time, **options)
                raise typer.Exit(_run_workers(orders, listener, settings, banner))
            config = configure(app, proxies=proxies, reload=reload, **options)
            _run(Server(config, started=banner.show, drain=drain_time), listener, app, env)
    except HubbubError as error:
        typer.echo(f"hubbub: {error}", err=True)
        raise typer.Exit(1) from None


def _run(server: Server, listener: socket.socket, app: str, env: str) -> None:
    if server.config.should_reload:
        from uvicorn.supervisors import ChangeReload

        ChangeReload(server.config, target=server.run, sockets=[listener]).run()
        return
    load_app(app, listener.getsockname()[0], env)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if not server.started:
        raise ConfigError("The app failed to start; the lines above say why.")


def _check_workers(workers: int, settings: Settings, *, reload: bool) -> None:
    """Refuse what several processes cannot do."""
    if reload:
        raise ConfigError("--reload is for one process: leave out --workers.")
    if os.name != "posix":
        raise ConfigError("--workers needs a system with SIGHUP and inherited sockets, like Linux.")
    if _broker_given(settings) and settings.hubbub_broker_url.startswith("memory:"):
        raise ConfigError(
            f"HUBBUB_BROKER_URL=memory:// is for one process, and --workers is {workers}: leave it out, or give a URL "
            "like nats://host:4222."
        )


def _run_workers(orders: Orders, listener: socket.socket, settings: Settings, banner: Banner) -> int:
    from logging.config import dictConfig

    from hubbub.cli.nats import OwnNats
    from hubbub.cli.workers import Hubs, Workers
    from hubbub.servers.server import LOGGING

    dictConfig(LOGGING)
    logging.getLogger("hubbub.workers").setLevel(logging.INFO)
    nats = None if _broker_given(settings) else OwnNats(settings.hubbub_data_dir / "nats")

    def started(hubs: Hubs) -> None:
        broker = {} if nats is None else {"Broker": nats.place}
        banner.show(
            hubs, {**broker, "Workers": f"{orders.workers}; `kill -HUP {os.getpid()}` replaces them one by one"}
        )

    async def run() -> int:
        return await Workers(orders, Port(orders.host, listener), nats, started).run()

    return asyncio.run(run())


def _broker_given(settings: Settings) -> bool:
    return "hubbub_broker_url" in settings.model_fields_set


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


logging.getLogger("hubbub").addHandler(logging.NullHandler())
