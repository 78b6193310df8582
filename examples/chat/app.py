"""A chat: accounts, rooms, messages to one user, announcements. Read it from top to bottom, then `live.py`.

Run it with `hubbub serve examples.chat.app:app` and open http://127.0.0.1:5000.
"""

from __future__ import annotations

import html
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.middleware.sessions import SessionMiddleware

from examples.chat import accounts, conversations, database, rooms
from examples.chat.accounts import NAME, Account
from examples.chat.live import PEOPLE, admit, dismiss, hub
from hubbub import CloseCode
from hubbub.errors import StoreError

HERE = Path(__file__).parent
WEEK = 7 * 24 * 60 * 60
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with database.opened():
        await rooms.create(rooms.LOBBY, None)
        yield


app = FastAPI(title="Hubbub chat", lifespan=lifespan)
app.add_middleware(
    SessionMiddleware,
    secret_key=accounts.session_secret(),
    session_cookie="chat_session",
    max_age=WEEK,
    same_site="lax",  # no page of another site can send it along, over HTTP or with a WebSocket
    https_only=database.settings.deploy_env == "production",
)
hub.attach(app)


# Who asks: by the same session that signs the WebSocket in.
async def signed_in(request: Request) -> Account:
    account = await accounts.by_session(request.session)
    if account is None:
        raise HTTPException(401, "Sign in first.")
    return account


Me = Annotated[Account, Depends(signed_in)]


class Credentials(BaseModel):
    name: str = Field(max_length=100)
    password: str = Field(max_length=200)


class Room(BaseModel):
    name: str = Field(max_length=100)


class Member(BaseModel):
    name: str = Field(max_length=100)


class Announcement(BaseModel):
    message: str = Field(min_length=1, max_length=500)


@app.post("/api/sign-up", status_code=201)
async def sign_up(request: Request, given: Credentials) -> dict[str, Any]:
    try:
        account = await accounts.sign_up(given.name, given.password)
    except accounts.BadInput as error:
        raise HTTPException(422, str(error)) from None
    except accounts.NameTaken as taken:
        raise HTTPException(409, f"The name {taken} is taken. If it is yours, sign in.") from None
    await admit(rooms.LOBBY, account.name)
    await hub.publish(PEOPLE, "joined", account.name)
    role = "You are the first here, so you are the admin." if account.admin else "Say hello in the lobby."
    await hub.notify(account.name, f"Welcome, {account.name}", role, "success", durable=True)
    return _begin(request, account)


@app.post("/api/sign-in")
async def sign_in(request: Request, given: Credentials) -> dict[str, Any]:
    account = await accounts.sign_in(given.name, given.password)
    if account is None:
        raise HTTPException(401, "This name and password do not belong together.")
    return _begin(request, account)


# Signing out ends every session and connection of the user: the cookie alone could have been copied.
@app.post("/api/sign-out", status_code=204)
async def sign_out(request: Request, me: Me) -> None:
    request.session.clear()
    await accounts.end_sessions(me.name)
    await hub.disconnect_user(me.name, CloseCode.UNAUTHORIZED, "signed out")


@app.get("/api/me")
async def who_am_i(request: Request) -> dict[str, Any] | None:
    account = await accounts.by_session(request.session)
    return None if account is None else _about(account)


@app.post("/api/rooms", status_code=201)
async def create_room(given: Room, me: Me) -> dict[str, str]:
    name = given.name.strip().lower().removeprefix("#")
    if NAME.fullmatch(name) is None:
        raise HTTPException(422, "A room's name has 2 to 32 letters a-z, digits, dots, dashes and underscores.")
    if not await rooms.create(name, me.name):
        raise HTTPException(409, "There is a room of this name.")
    await _let_in(name, me.name)
    return {"conversation": rooms.channel_of(name)}


@app.get("/api/rooms/{room}/members")
async def members(room: str, me: Me) -> dict[str, Any]:
    await _check_member(room, me)
    return {"members": await rooms.members_of(room), "owner": await rooms.owner(room)}


# Whoever is in a room may bring somebody along; whoever made it, and an admin, may send somebody away.
@app.post("/api/rooms/{room}/members", status_code=204)
async def add_member(room: str, given: Member, me: Me) -> None:
    await _check_member(room, me)
    name = given.name.strip().lower().removeprefix("@")
    if not await accounts.existing([name]):
        raise HTTPException(404, "There is nobody of this name.")
    await _let_in(room, name)


@app.delete("/api/rooms/{room}/members/{name}", status_code=204)
async def remove_member(room: str, name: str, me: Me) -> None:
    await _check_member(room, me)
    if room == rooms.LOBBY:
        raise HTTPException(403, "Everybody is in the lobby.")
    if not (me.admin or me.name in (name, await rooms.owner(room))):
        raise HTTPException(403, "Only who made the room can send somebody away.")
    if name not in await rooms.members_of(room):
        raise HTTPException(404, "Nobody of this name is in the room.")
    await dismiss(room, name)


@app.get("/api/messages")
async def messages(
    me: Me,
    conversation: Annotated[str, Query(max_length=100)],
    before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    after: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[dict[str, Any]]:
    found = await conversations.history(conversations.key_of(me.name, conversation), limit, before, after)
    return [message.wire for message in found]


# The hub works from any route, task or thread: here an ordinary HTTP request reaches everybody.
@app.post("/api/announce")
async def announce(given: Announcement, me: Me) -> dict[str, int]:
    if not me.admin:
        raise HTTPException(403, "Only an admin can announce something.")
    return {"connections": (await hub.broadcast_system(given.message)).connections}


async def _check_member(room: str, me: Account) -> None:
    if not await rooms.has(room, me.name):
        raise HTTPException(404, "You are not in a room of this name.")


async def _let_in(room: str, name: str) -> None:
    if not await admit(room, name):
        raise HTTPException(409, f"{name} is in too many rooms.")


@app.exception_handler(StoreError)
async def unavailable(request: Request, error: StoreError) -> JSONResponse:
    return JSONResponse({"detail": "The database is out of reach. Try again in a moment."}, 503)


# The page itself.
PAGE = (HERE / "page" / "index.html").read_text("utf-8").replace("{ws_path}", html.escape(hub.path))
app.mount("/page", StaticFiles(directory=HERE / "page"))


@app.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE, headers=SECURITY)


def _begin(request: Request, account: Account) -> dict[str, Any]:
    request.session.clear()
    request.session.update(account.session)
    return _about(account)


def _about(account: Account) -> dict[str, Any]:
    return {"name": account.name, "admin": account.admin}
