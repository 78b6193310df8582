"""Bind connections to users by the app's own session cookie; strangers and foreign pages are sent away."""

from http.cookies import SimpleCookie

from fastapi import FastAPI

from hubbub import CloseCode, Connection, Handshake, Hub

app = FastAPI()
hub = Hub()
hub.attach(app)
SESSIONS = {"c0ffee": "ada", "decade": "brian"}  # your session store


@hub.on_connect
def sign_in(conn: Connection, handshake: Handshake) -> None:
    session = SimpleCookie(handshake.header("cookie") or "").get("session")
    user = SESSIONS.get(session.value) if session else None
    if handshake.header("origin") != "https://shop.example":
        conn.close(CloseCode.FORBIDDEN, "open this from our own pages")
    elif user is None:
        conn.close(CloseCode.UNAUTHORIZED, "sign in first")
    conn.identify(user)


@app.post("/users/{user_id}/notify")
async def notify(user_id: str, text: str) -> bool:
    return (await hub.notify(user_id, "From the shop", text, "success")).delivered
