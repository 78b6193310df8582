"""Say no in a way that the client understands: by the payload's type, by a rule of yours, or by mistake."""

from typing import Annotated

import msgspec
from fastapi import FastAPI

from hubbub import Connection, Hub, RequestError

app = FastAPI()
hub = Hub()
hub.attach(app)


class Bid(msgspec.Struct):
    lot_number: int
    amount: Annotated[float, msgspec.Meta(gt=0)]


@hub.on("bid")
def bid(conn: Connection, payload: Bid) -> dict[str, str]:
    if payload.lot_number != 7:
        raise RequestError("no_such_lot", "Only lot 7 is open.", "lotNumber")
    return {"status": "leading" if 1 / (payload.amount - 13) > 0 else "outbid"}
