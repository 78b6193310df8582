"""Ask the client and wait for its answer, with a deadline."""

from fastapi import FastAPI

from hubbub import Connection, Hub, RequestTimeout

app = FastAPI()
hub = Hub()
hub.attach(app)


@hub.on("delete_account")
async def delete_account(conn: Connection) -> str:
    try:
        sure = await conn.request("confirm", {"question": "Delete everything?"}, timeout=2.0, returns=bool)
    except RequestTimeout:
        return "kept: no answer"
    return "deleted" if sure else "kept"
