"""How the API says no: an HTTP status, and a body with the wire's code."""

from __future__ import annotations

import logging
import math
import re
import secrets

import msgspec

from hubbub.core.envelope import invalid_payload
from hubbub.errors import ERROR_CODES, HubbubError, RequestError, StoreError, UsageError

__all__ = ["STATUSES", "Failed", "Failure", "explain", "failure"]

logger = logging.getLogger("hubbub.api")

STATUSES = {
    "bad_json": 400,
    "invalid_payload": 400,
    "bad_channel": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "too_large": 413,
    "unsupported_media_type": 415,
    "rate_limited": 429,
    "channel_limit": 429,
    "channel_full": 429,
    "internal": 500,
    "unavailable": 503,
    "storage_full": 507,
}
"""The status of each code; others are 400."""
AGAIN = 1  # seconds, where an error does not say
UNKNOWN = re.compile(r"unknown field `(.*?)`(?: - at |$)", re.DOTALL)
Header = tuple[bytes, bytes]


class Failure(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """Why something was not done.

    Args:
        code: one of the codes of the wire, or of HTTP.
        message: a sentence for the developer.
        field: the part of the request at fault, like `publications[3].channel`.
        retry_after: milliseconds until it may be asked again.
    """

    code: str
    message: str
    field: str | None = None
    retry_after: int | None = None


class Failed(HubbubError):
    """An answer that is not 200.

    Args:
        status: the HTTP status.
        code: what failed.
        message: a sentence for the developer.
        headers: what else the answer carries.
    """

    def __init__(self, status: int, code: str, message: str, headers: tuple[Header, ...] = ()) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.body = Failure(code, message)
        self.headers = headers


def failure(error: Exception) -> Failed:
    """The answer to an error; what nobody foresaw goes to the log, and only its reference to the caller."""
    if isinstance(error, Failed):
        return error
    known = _known(error)
    status = STATUSES.get(known.code, 400)
    found = Failed(status, known.code, known.message)
    wait = None if known.retry_after is None else math.ceil(known.retry_after * 1000)
    found.body = Failure(known.code, known.message, known.field, wait)
    if status in (429, 503):
        seconds = AGAIN if known.retry_after is None else max(AGAIN, math.ceil(known.retry_after))
        found.headers = ((b"retry-after", b"%d" % seconds),)
    return found


def explain(error: Exception) -> RequestError:
    """Say what is wrong with a body, the field named."""
    if not isinstance(error, msgspec.ValidationError):
        return RequestError("bad_json", "The body is not JSON in UTF-8.")
    known, unknown = invalid_payload(error), UNKNOWN.search(str(error))
    if unknown is None:
        return RequestError(known.code, known.message.removeprefix("payload").lstrip(".: "), known.field)
    field = f"{known.field}.{unknown[1]}" if known.field else unknown[1]
    return RequestError("invalid_payload", "There is no such field.", field)


def _known(error: Exception) -> RequestError:
    """What the caller may know."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, StoreError):
        return RequestError(error.code, f"{ERROR_CODES[error.code].meaning.capitalize()}. Try again later.")
    if isinstance(error, UsageError):
        return RequestError("invalid_payload", str(error))
    reference = secrets.token_hex(4)
    logger.error("a call of the HTTP API failed, reference %s", reference, exc_info=error)
    return RequestError("internal", f"The server failed to do this; its log has reference {reference}.")
