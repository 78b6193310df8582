"""Keys: a dataclass or Struct is camelCase on the wire by itself; dicts and TypedDicts travel as they are."""

from dataclasses import dataclass
from typing import TypedDict

from fastapi import FastAPI

from hubbub import Connection, Hub

hub = Hub()
app = hub.wrap(FastAPI())


@dataclass
class Line:
    line_color: str  # lineColor on the wire


class Filter(TypedDict):
    max_price: float  # max_price on the wire as well


@hub.on("draw")
def draw(conn: Connection, payload: Line) -> Line:
    return payload


@hub.on("find")
def find(conn: Connection, payload: Filter) -> Filter:
    return payload
