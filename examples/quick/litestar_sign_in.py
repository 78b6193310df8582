"""A session of Litestar's, kept in an encrypted cookie, signs in."""

import secrets
from typing import Any

from litestar import Litestar, Request, post
from litestar.middleware.session.client_side import CookieBackendConfig

from hubbub import Handshake, Hub


def who(handshake: Handshake) -> str | None:
    user: str | None = handshake.scope["session"].get("user")
    return user


@post("/sign-in/{user:str}")
async def sign_in(request: Request[Any, Any, Any]) -> None:
    request.session["user"] = request.path_params["user"]  # once the password is checked


session = CookieBackendConfig(secret=secrets.token_bytes(32), samesite="lax")
app = Litestar([sign_in], middleware=[session.middleware])
hub = Hub(authenticator=who)
hub.attach(app)
