"""Signing in at the handshake, through real servers: sessions of Starlette and Django, tokens, and refusals."""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessions
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hubbub import Auth, CloseCode, Handshake, Hub, Identity, RequestError
from tests.node.tokens import SECRET, token
from tests.serving import Door, RawClient, RunningServer, fetch, serving

DOORS: list[Door] = ["native", "asgi"]
AUTH = Auth(secret=SECRET)


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Any:
    return request.param


async def sign_in(server: RunningServer, user: str) -> tuple[str, str]:
    """Visit the app's own page; the header with the cookie it set."""
    answer = await fetch(server, f"/login/{user}", "POST")
    assert answer.status == 200, answer
    return "Cookie", (answer.header("set-cookie") or "").partition(";")[0]


async def who(server: RunningServer, *headers: tuple[str, str]) -> Any:
    """Connect; what the server says of us right behind its welcome, None if it says nothing."""
    async with RawClient.join(server, headers=[("Origin", server.url), *headers]) as client:
        client.send_json("ping", ...)
        message = await client.recv_json()
        return None if message["type"] == "pong" else message["payload"]


# --- Sessions --------------------------------------------------------------------------------------------------------


async def test_a_starlette_session_signs_in_without_a_token(door: Door) -> None:
    seen: list[tuple[str | None, str]] = []

    def from_session(handshake: Handshake) -> Identity | None:
        user = handshake.scope["session"].get("user")
        return None if user is None else Identity(user, claims={"by": "session"})

    async def login(request: Request) -> PlainTextResponse:
        request.session["user"] = request.path_params["user"]
        return PlainTextResponse("")

    app = Starlette(
        routes=[Route("/login/{user}", login, methods=["POST"])],
        middleware=[Middleware(SessionMiddleware, secret_key="of the session")],
    )
    hub = Hub(authenticator=from_session)
    hub.attach(app)
    hub.on_connect(lambda conn: seen.append((conn.user_id, conn.claims.get("by", ""))))
    async with serving(app, door) as server:
        answer = await who(server, await sign_in(server, "ada"))
        assert (answer["userId"], answer["expiresAt"]) == ("ada", None)
        assert await who(server) is None
        assert await who(server, ("Cookie", "session=forged")) is None
    assert seen == [("ada", "session"), (None, ""), (None, "")]


class Basic(AuthenticationBackend):
    """What Starlette's own authentication leaves in `scope["user"]`."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        user = conn.headers.get("x-user")
        return None if user is None else (AuthCredentials(["authenticated"]), SimpleUser(user))


async def test_a_user_of_starlettes_authentication(door: Door) -> None:
    async def from_scope(handshake: Handshake) -> str | None:
        user = handshake.scope["user"]
        return user.display_name if user.is_authenticated else None

    app = Starlette(middleware=[Middleware(AuthenticationMiddleware, backend=Basic())])
    Hub(authenticator=from_scope).attach(app)
    async with serving(app, door) as server:
        assert (await who(server, ("X-User", "ada")))["userId"] == "ada"
        assert await who(server) is None


def django_login(request: HttpRequest, user: str) -> HttpResponse:
    request.session["user"] = user
    return HttpResponse("")


async def from_django(handshake: Handshake) -> str | None:
    """What an app's `authenticator` does: Django's middleware does not see WebSockets."""
    engine = import_module(settings.SESSION_ENGINE)
    session = engine.SessionStore(handshake.cookies.get(settings.SESSION_COOKIE_NAME))
    user: str | None = await session.aget("user")
    return user


class Urls:
    """Django's table of routes."""

    urlpatterns = (path("login/<user>", django_login),)


async def test_a_django_session_signs_in_without_a_token(door: Door, tmp_path: Path) -> None:
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50, LOGGING_CONFIG=None, ROOT_URLCONF=Urls)
        django.setup()
    with override_settings(
        ROOT_URLCONF=Urls,
        MIDDLEWARE=[f"{DjangoSessions.__module__}.{DjangoSessions.__qualname__}"],
        SESSION_ENGINE="django.contrib.sessions.backends.file",
        SESSION_FILE_PATH=str(tmp_path),
    ):
        app = Hub(authenticator=from_django).wrap(get_asgi_application())
        async with serving(app, door) as server:
            cookie = await sign_in(server, "ada")
            assert (await who(server, cookie))["userId"] == "ada"
            assert await who(server) is None
            assert await who(server, ("Cookie", "sessionid=forged")) is None


# --- Tokens and tickets ----------------------------------------------------------------------------------------------


async def test_each_way_in(door: Door) -> None:
    hub = Hub(auth=AUTH)
    async with serving(hub.wrap(Starlette()), door) as server:
        assert (await who(server, ("Authorization", f"Bearer {token()}")))["userId"] == "ada"
        assert (await who(server, ("Cookie", f"hubbub_token={token()}")))["userId"] == "ada"
        ticket = hub.tickets.issue("bob")
        async with RawClient.join(server, f"/ws?ticket={ticket}") as client:
            assert (await client.recv_json("authenticated"))["userId"] == "bob"
        async with RawClient.connect(server, f"/ws?ticket={ticket}") as client:
            await client.expect_close(CloseCode.UNAUTHORIZED, "The ticket was used before.")


@pytest.mark.parametrize("ours", [True, False], ids=["hubbub.v1 too", "alone"])
async def test_a_token_as_a_subprotocol_is_never_answered(door: Door, ours: bool) -> None:
    text = token()
    offered = ("Sec-WebSocket-Protocol", f"bearer.{text}" + ", hubbub.v1" * ours)
    async with (
        serving(Hub(auth=AUTH).wrap(Starlette()), door) as server,
        RawClient.join(server, headers=[offered]) as client,
    ):
        assert (await client.recv_json("authenticated"))["userId"] == "ada"
        assert client.answer.header("sec-websocket-protocol") == ("hubbub.v1" if ours else None)
        assert text not in repr(client.answer)


async def test_a_ticket_from_a_route_of_the_app(door: Door) -> None:
    hub = Hub(auth=AUTH)

    def ticket(request: Request) -> PlainTextResponse:
        return PlainTextResponse(hub.tickets.issue("ada"))  # in a thread

    app = Starlette(routes=[Route("/ticket", ticket)])
    hub.attach(app)
    async with serving(app, door) as server:
        text = (await fetch(server, "/ticket")).body.decode()
        async with RawClient.join(server, f"/ws?ticket={text}") as client:
            assert (await client.recv_json("authenticated"))["userId"] == "ada"


# --- Refusals --------------------------------------------------------------------------------------------------------


def no(error: Exception, handshake: Handshake) -> str:
    raise error


LONG = "It is forbidden for a reason that would fill a whole page, in words like Übermaß. " * 9
REFUSALS: dict[str, tuple[Any, int, str]] = {
    "forbidden": (RequestError("forbidden", "You are banned."), CloseCode.FORBIDDEN, "You are banned."),
    "at length": (RequestError("forbidden", LONG), CloseCode.FORBIDDEN, LONG.encode()[:122].decode("utf-8", "ignore")),
    "unauthorized": (RequestError("unauthorized", "Sign in."), CloseCode.UNAUTHORIZED, "Sign in."),
    "a bug": (KeyError("secret"), CloseCode.INTERNAL_ERROR, "The server failed to find out who this is."),
}


@pytest.mark.parametrize(("error", "code", "reason"), REFUSALS.values(), ids=REFUSALS)
async def test_who_is_refused_sees_a_close_and_nothing_else_happens(
    door: Door, error: Exception, code: int, reason: str
) -> None:
    happened: list[str] = []
    hub = Hub(authenticator=functools.partial(no, error))
    hub.on_connect(lambda conn: happened.append("connect"))
    hub.on_close(lambda conn: happened.append("close"))
    async with serving(hub.wrap(Starlette()), door) as server, RawClient.connect(server) as client:
        frame = await client.recv_frame()
        assert (frame.opcode, frame.code) == (8, code)
        assert frame.reason.startswith(reason[:100])
        assert (await server.run(hub.stats()))["connections"] == 0
        client.send_frame(8, frame.payload[:2])
        await client.expect_end()
        assert await server.run(hub.broadcast("news")) is not None
    assert happened == []


async def test_a_refused_client_that_stays_is_no_obstacle_to_the_end(door: Door) -> None:
    hub = Hub(auth=AUTH)
    async with (
        serving(hub.wrap(Starlette()), door) as server,
        RawClient.connect(server, headers=[("Authorization", "Bearer x")]) as client,
    ):
        assert (await client.recv_frame()).code == CloseCode.UNAUTHORIZED
        client.send_json("echo", 1)
        async with RawClient.join(server) as other:
            assert (await other.ask("echo", 1))["payload"] == 1


async def test_a_route_in_a_thread_logs_a_user_out(door: Door, tmp_path: Path) -> None:
    hub = Hub(auth=AUTH, inbox_url=f"sqlite:///{tmp_path / 'inbox.db'}")

    def logout(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(hub.sync.revoke(jti="logs out")))

    app = Starlette(routes=[Route("/logout", logout, methods=["POST"])])
    hub.attach(app)

    async with serving(app, door) as server:
        headers = [("Authorization", f"Bearer {token(jti='logs out')}")]
        async with RawClient.join(server, headers=headers) as client:
            await client.recv_json("authenticated")
            assert (await fetch(server, "/logout", "POST")).body == b"1"
            await client.expect_close(CloseCode.UNAUTHORIZED, "the token was revoked")


async def test_who_comes_after_the_end_is_not_asked_who_it_is(door: Door, tmp_path: Path) -> None:
    hub = Hub(auth=AUTH, inbox_url=f"sqlite:///{tmp_path / 'inbox.db'}")
    async with serving(hub.wrap(Starlette()), door) as server:
        await server.run(hub.shutdown())
        for text in (token(), "junk"):
            async with RawClient.connect(server, headers=[("Authorization", f"Bearer {text}")]) as client:
                await client.expect_close(CloseCode.GOING_AWAY)
        assert not hub.node.databases["inbox"].reached
