"""The app, for processes beside it: they import `hub`, and HUBBUB_BROKER_URL is the same for all of them."""

from fastapi import FastAPI

from hubbub import Handshake, Hub

app = FastAPI()
hub = Hub(authenticator=lambda handshake: user_of(handshake))
hub.attach(app)
hub.namespace("reports", history=100)
hub.namespace("prices")


def user_of(handshake: Handshake) -> str | None:
    return handshake.header("x-user")  # your session
