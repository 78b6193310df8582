"""A session of Django's signs in; its middleware sees no WebSockets, so the session is read from the cookie."""

import django
from django.conf import settings
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from hubbub import Handshake, Hub

MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
SESSIONS = {"SESSION_ENGINE": SessionStore.__module__, "MIDDLEWARE": MIDDLEWARE}
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="of this example", **SESSIONS)
django.setup()


async def who(handshake: Handshake) -> str | None:
    session = SessionStore(handshake.cookies.get(settings.SESSION_COOKIE_NAME))
    user: str | None = await session.aget("user")
    return user


def sign_in(request: HttpRequest, user: str) -> HttpResponse:
    request.session["user"] = user  # `django.contrib.auth.login` keeps it as "_auth_user_id"
    return HttpResponse()


urlpatterns = [path("sign-in/<user>", sign_in)]
app = Hub(authenticator=who).wrap(get_asgi_application())
