import os
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from msgspec import Struct
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware

from hubbub import Connection, Handshake, Hub, RequestError

PASSWORDS = {"ada": "1815", "brian": "1942"}  # yours: hashes, in a database

app = FastAPI()
secret = os.environ.get("SESSION_SECRET", "good enough for a tutorial")
app.add_middleware(SessionMiddleware, secret_key=secret, same_site="strict")


def who(handshake: Handshake) -> str:
    user: str | None = handshake.scope["session"].get("user")
    if user is None:
        raise RequestError("unauthorized", "Sign in first.")
    return user


hub = Hub(authenticator=who)
hub.attach(app)


class SignIn(BaseModel):
    name: str
    password: str


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("signed.html"))


@app.post("/sign-in")
def sign_in(request: Request, body: SignIn) -> None:
    if PASSWORDS.get(body.name) != body.password:
        raise HTTPException(403)
    request.session["user"] = body.name


class Say(Struct):
    text: str


@hub.on_connect
async def arrived(conn: Connection) -> None:
    await hub.broadcast_system(f"{conn.user_id} is here.")


@hub.on("say", auth=True)
async def say(conn: Connection, payload: Say) -> None:
    if payload.text.startswith("@"):
        await whisper(conn, payload.text[1:])
    else:
        await hub.broadcast("said", {"from": conn.user_id, "text": payload.text})


async def whisper(conn: Connection, line: str) -> None:
    name, _, text = line.partition(" ")
    if name not in PASSWORDS:
        raise RequestError("no_such_user", "There is no such user.", "text")
    message = {"from": f"{conn.user_id}, only to you", "text": text}
    receipt = await hub.send_to_user(name, "said", message, durable=True)
    if not receipt.delivered:
        await hub.notify(conn.user_id or "", "Away", f"{name} will see it later.")


@hub.on_close
async def left(conn: Connection) -> None:
    if conn.user_id and not await hub.is_user_connected(conn.user_id):
        await hub.broadcast_system(f"{conn.user_id} has left.")
