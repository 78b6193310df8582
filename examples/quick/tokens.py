"""JSON Web Tokens: whoever brings a good one is signed in, until it expires or is taken back."""

from fastapi import FastAPI

from hubbub import Auth, Connection, Hub

app = FastAPI()
hub = Hub(auth=Auth(issuer="https://login.example", audience="chat"), require_auth=True)
hub.attach(app)


@hub.on("me")
def me(conn: Connection) -> dict[str, object]:
    return {"user": conn.user_id, "role": conn.claims.get("role")}


@app.post("/users/{user_id}/sign-out")
async def sign_out(user_id: str) -> int:
    return await hub.revoke(user_id=user_id)  # how many connections were closed
