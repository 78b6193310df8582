"""Answer a question: what a handler returns goes back to the client, with the id of its message.

Run it with `hubbub serve examples.quick.echo:app` and send `{"type": "shout", "payload": "hello"}`.
"""

from fastapi import FastAPI

from hubbub import Connection, Hub

app = FastAPI()
hub = Hub()
hub.attach(app)


@hub.on("shout")
def shout(conn: Connection, payload: str) -> str:
    return payload.upper()
