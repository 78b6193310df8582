"""The built-in chat: any signed-in user may write to any other, and what is written waits for who is away."""

from fastapi import FastAPI

from hubbub import Hub

app = FastAPI()
hub = Hub(chat=True, require_auth=True)
hub.attach(app)
