"""One small app in each framework, with a hub in it: `GET /hello`, `POST /async` and `POST /sync` publish on `news`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import django
import django.urls
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from fastapi import FastAPI
from litestar import Litestar, get, post
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hubbub import Hub

__all__ = ["FRAMEWORKS", "Diary", "bare_app"]

Diary = list[str]
"""What happened in which order; the app writes `app up` and `app down`, with what the hub does at that moment."""


def note(diary: Diary, hub: Hub, what: str) -> None:
    """Write a line."""
    diary.append(f"{what}, hub {'runs' if hub.node.running else 'rests'}")


def with_fastapi(hub: Hub, diary: Diary) -> Any:
    """FastAPI."""
    app = FastAPI(lifespan=functools.partial(_lifespan, hub, diary))

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    @app.post("/async")
    async def publish() -> int:
        return (await hub.publish("news", "async")).connections

    @app.post("/sync")
    def publish_from_a_thread() -> int:
        return hub.sync.publish("news", "sync").connections

    hub.attach(app)
    return app


def with_starlette(hub: Hub, diary: Diary) -> Any:
    """Starlette."""

    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    async def publish(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str((await hub.publish("news", "async")).connections))

    def publish_from_a_thread(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(hub.sync.publish("news", "sync").connections))

    routes = [
        Route("/hello", hello),
        Route("/async", publish, methods=["POST"]),
        Route("/sync", publish_from_a_thread, methods=["POST"]),
    ]
    app = Starlette(routes=routes, lifespan=functools.partial(_lifespan, hub, diary))
    hub.attach(app)
    return app


def with_litestar(hub: Hub, diary: Diary) -> Any:
    """Litestar, which has hooks beside its lifespan managers."""

    @get("/hello", sync_to_thread=False)
    def hello() -> str:
        return "hello"

    @post("/async")
    async def publish() -> int:
        return (await hub.publish("news", "async")).connections

    @post("/sync", sync_to_thread=True)
    def publish_from_a_thread() -> int:
        return hub.sync.publish("news", "sync").connections

    app = Litestar(
        [hello, publish, publish_from_a_thread],
        on_startup=[lambda: note(diary, hub, "app up")],
        lifespan=[functools.partial(_closing, hub, diary)],
        openapi_config=None,
    )
    hub.attach(app)
    return app


def with_django(hub: Hub, diary: Diary) -> Any:
    """Django, whose ASGI app knows no lifespan."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=Urls, SECRET_KEY="x" * 50, LOGGING_CONFIG=None)
        django.setup()
    Urls.hub = hub
    return hub.wrap(get_asgi_application())


def _django_hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


async def _django_publish(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str((await Urls.hub.publish("news", "async")).connections))


def _django_publish_from_a_thread(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Urls.hub.sync.publish("news", "sync").connections))


class Urls:
    """Django's table of routes, and the hub they use."""

    hub: Hub
    urlpatterns = (
        django.urls.path("hello", _django_hello),
        django.urls.path("async", _django_publish),
        django.urls.path("sync", _django_publish_from_a_thread),
    )


def with_bare_asgi(hub: Hub, diary: Diary) -> Any:
    """A callable that speaks ASGI, lifespan included."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            note(diary, hub, "app up")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            note(diary, hub, "app down")
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await bare_app(scope, receive, send, hub)

    return hub.wrap(app)


async def bare_app(scope: Any, receive: Any, send: Any, hub: Hub) -> None:
    """Answer one HTTP request."""
    body = b"hello"
    if scope["path"].endswith("/async"):
        body = b"%d" % (await hub.publish("news", "async")).connections
    elif scope["path"].endswith("/sync"):
        body = b"%d" % (await asyncio.to_thread(hub.sync.publish, "news", "sync")).connections
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def _lifespan(hub: Hub, diary: Diary, app: Any) -> AsyncIterator[dict[str, str]]:
    note(diary, hub, "app up")
    yield {"database": "open"}
    note(diary, hub, "app down")


@asynccontextmanager
async def _closing(hub: Hub, diary: Diary, app: Any) -> AsyncIterator[None]:
    yield
    note(diary, hub, "app down")


FRAMEWORKS: dict[str, Callable[[Hub, Diary], Any]] = {
    "fastapi": with_fastapi,
    "starlette": with_starlette,
    "litestar": with_litestar,
    "django": with_django,
    "bare": with_bare_asgi,
}
