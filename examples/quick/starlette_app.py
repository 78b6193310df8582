"""A hub in a Starlette app: ahead of its routes, inside its lifespan."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from hubbub import Hub


async def count(request: Request) -> JSONResponse:
    return JSONResponse({"connections": hub.connection_count})


app = Starlette(routes=[Route("/count", count)])
hub = Hub()
hub.attach(app)
