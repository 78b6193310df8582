"""A pydantic model as payload and as reply; it names its keys on the wire itself."""

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from hubbub import Connection, Hub

app = FastAPI()
hub = Hub()
hub.attach(app)


class Order(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    order_id: str = Field(min_length=3)
    unit_count: int = 1


@hub.on("order", reply="ordered")
def order(conn: Connection, payload: Order) -> Order:
    return payload.model_copy(update={"unit_count": payload.unit_count + 1})
