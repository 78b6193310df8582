"""Starlette's own authentication: its middleware leaves the user in the scope, and the hub takes it from there."""

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from hubbub import Handshake, Hub

KEYS = {"c0ffee": "ada"}  # yours


class ApiKeys(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        user = KEYS.get(conn.headers.get("x-api-key", ""))
        return None if user is None else (AuthCredentials(["authenticated"]), SimpleUser(user))


def who(handshake: Handshake) -> str | None:
    user = handshake.scope["user"]
    return user.display_name if user.is_authenticated else None


app = Starlette(middleware=[Middleware(AuthenticationMiddleware, backend=ApiKeys())])
hub = Hub(authenticator=who)
hub.attach(app)
