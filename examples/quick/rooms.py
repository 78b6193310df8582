"""Rooms that remember: members only, and a client that comes back gets what it missed."""

from fastapi import FastAPI

from hubbub import Hub
from hubbub.channels import Access, Lease

app = FastAPI()
hub = Hub(authenticator=lambda handshake: handshake.header("x-user"))  # yours: a session, a token
hub.attach(app)
hub.namespace("room", history=100, history_ttl=3600)
members = {7: {"ada", "brian"}}


@hub.channel("room:{number}")
async def room(access: Access, number: int) -> bool | Lease:
    if access.user_id not in members.get(number, ()):
        return False
    return Lease(recheck=60)  # yes, and ask again in a minute


@app.delete("/rooms/{number}/members/{user_id}")
async def dismiss(number: int, user_id: str) -> None:
    members[number].discard(user_id)
    await hub.recheck(channel=f"room:{number}")  # and now
