"""Publish over HTTP, from whatever can make a request: no broker, no import of the app."""

import json
import os
import urllib.request
from typing import Any

API = os.environ.get("HUBBUB_API", "http://127.0.0.1:5000/ws/api")


def call(name: str, **body: Any) -> Any:
    headers = {"Authorization": f"Bearer {os.environ['HUBBUB_API_KEY']}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{API}/{name}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


if __name__ == "__main__":
    print(call("publish", channel="prices", event="changed", data={"symbol": "ACME", "price": 3.5}))
    print(call("connections", userId="ann"))
