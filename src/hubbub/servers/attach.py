"""Put a hub inside an app that already exists: its routes first, its life inside the app's lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hubbub.errors import UsageError
from hubbub.servers.api import api_path, api_paths
from hubbub.servers.asgi import Endpoint
from hubbub.servers.pages import pages

if TYPE_CHECKING:
    from hubbub.node.hub import Hub

__all__ = ["attach"]


def attach(hub: Hub, app: Any) -> None:
    """Serve `hub` inside `app`.

    Raises:
        UsageError: an app of another kind, or (Starlette and FastAPI tell) one that has started.
    """
    if hasattr(getattr(app, "router", None), "lifespan_context"):
        _attach_to_starlette(hub, app)
    elif type(app).__module__.split(".")[0] == "litestar" or hasattr(app, "asgi_router"):
        _attach_to_litestar(hub, app)
    else:
        kind = f"{type(app).__module__}.{type(app).__qualname__}"
        raise UsageError(f"hub.attach knows FastAPI, Starlette and Litestar, not {kind}: write `app = hub.wrap(app)`.")


def _attach_to_starlette(hub: Hub, app: Any) -> None:
    """FastAPI and Starlette: insert ahead of every route, a `mount("/")` too."""
    from starlette.routing import Route, WebSocketRoute

    if app.middleware_stack is not None:
        raise UsageError("This app has started: call hub.attach(app) where the app is made.")
    endpoint, router = Endpoint(hub), app.router
    if any(isinstance(route.endpoint, Endpoint) and route.endpoint.hub is not hub for route in _at(hub.path, router)):
        raise UsageError(f"Another hub is at {hub.path} of this app: give one of them Hub(path=...).")
    routes: list[Any] = [WebSocketRoute(hub.path, endpoint, name="hubbub")]
    routes += [Route(path, endpoint, methods=["GET"], include_in_schema=False) for path in (hub.path, *pages(hub.path))]
    if place := api_path(hub):
        routes += [Route(path, endpoint, include_in_schema=False) for path in (place, place + "/{name:path}")]
    router.routes[:0] = routes
    of_the_app = router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        # Inside the app's own: handlers may use what it opened, until the last of them is done.
        async with of_the_app(app) as state, hub.running():
            yield state

    router.lifespan_context = lifespan


def _at(path: str, router: Any) -> list[Any]:
    """The routes of a path that have an endpoint."""
    return [route for route in router.routes if getattr(route, "path", None) == path and hasattr(route, "endpoint")]


def _attach_to_litestar(hub: Hub, app: Any) -> None:
    """Litestar: an ASGI handler for each path, and its lifespan."""
    from litestar.handlers import asgi

    endpoint = Endpoint(hub)

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await endpoint(scope, receive, send)

    async def start() -> None:
        hub.start()
        await hub.node.open()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await hub.shutdown()

    app.register(asgi([hub.path, *pages(hub.path), *api_paths(hub)], copy_scope=True)(serve))
    app.on_startup.append(start)
    # Its `on_shutdown` is too late: by then what the app's own managers opened is closed, and handlers still run.
    app._lifespan_managers.append(lifespan)
