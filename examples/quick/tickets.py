"""Tickets: a page that is signed in asks a route for one, and connects with `/ws?ticket=...` at once."""

from typing import Annotated

from fastapi import Cookie, FastAPI, HTTPException

from hubbub import Hub

app = FastAPI()
hub = Hub(require_auth=True)
hub.attach(app)
SESSIONS = {"c0ffee": "ada"}  # yours


@app.post("/ticket")
def ticket(session: Annotated[str, Cookie()] = "") -> str:
    if session not in SESSIONS:
        raise HTTPException(401)
    return hub.tickets.issue(SESSIONS[session], claims={"by": "ticket"})
