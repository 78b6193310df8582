"""The API's own description, in OpenAPI 3.1, made of the Structs that it reads and writes."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import msgspec

from hubbub.servers.api.calls import CALLS, Call
from hubbub.servers.api.failures import STATUSES, Failure

__all__ = ["DOCUMENT", "describe"]

DOCUMENT = "openapi.json"
REFERENCES = "#/components/schemas/{name}"
ERRORS = "It was not done; " + ", ".join(f"{code}: {status}" for code, status in STATUSES.items()) + "."
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


@cache
def describe(place: str) -> bytes:
    """The document, as JSON.

    Args:
        place: the path that the API is at.
    """
    kinds = [*(call.asked for call in CALLS.values()), *(call.answer for call in CALLS.values()), Failure]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCES)
    pairs = zip(CALLS.items(), schemas[: len(CALLS)], schemas[len(CALLS) : -1], strict=True)
    failed = {"description": ERRORS, **_json(schemas[-1])}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Hubbub", "version": "1", "description": "What other servers ask of the hub."},
            "servers": [{"url": place}],
            "security": [{name: []} for name in KEYS],
            "paths": {
                f"/{name}": {"post": _operation(name, call, asked, answer)} for (name, call), asked, answer in pairs
            },
            "components": {"schemas": components, "responses": {"Failed": failed}, "securitySchemes": KEYS},
        }
    )


def _operation(name: str, call: Call, asked: Any, answer: Any) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": inspect.getdoc(call.asked),
        "requestBody": {"required": True, **_json(asked)},
        "responses": {
            "200": {"description": inspect.getdoc(call.answer), **_json(answer)},
            "default": {"$ref": "#/components/responses/Failed"},
        },
    }


def _json(schema: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
