"""Whoever is signed in to the app, by its own session, is signed in to the hub; foreign pages are sent away."""

from fastapi import FastAPI, Request
from starlette.middleware.sessions import SessionMiddleware

from hubbub import Handshake, Hub

app = FastAPI()
app.add_middleware(SessionMiddleware, secret_key="your app's own", same_site="lax")


def who(handshake: Handshake) -> str | None:
    user: str | None = handshake.scope["session"].get("user")
    return user


hub = Hub(authenticator=who, origins=["https://shop.example"])
hub.attach(app)


@app.post("/sign-in")
def sign_in(request: Request, user: str) -> None:
    request.session["user"] = user  # once the password is checked


@app.post("/users/{user_id}/notify")
async def notify(user_id: str, text: str) -> bool:
    return (await hub.notify(user_id, "From the shop", text, "success")).delivered
