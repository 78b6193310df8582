"""A view of a sync app, as in Flask or Django under gunicorn: one publisher for the module, made before it forks."""

from collections.abc import Callable, Iterable
from typing import Any

from examples.quick.anywhere import hub
from hubbub import Publisher

publisher = Publisher(hub)  # connects with its first call


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    symbol, _, price = environ["PATH_INFO"].strip("/").partition("/")
    publisher.publish("prices", "changed", {"symbol": symbol, "price": float(price)})
    start_response("204 No Content", [])
    return []
