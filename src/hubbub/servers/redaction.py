"""Keep tokens and tickets of URLs out of the servers' logs."""

from __future__ import annotations

import logging
from typing import Any

from hubbub.core.credentials import redact

__all__ = ["HideCredentials", "hide_credentials"]

LOGGERS = ("uvicorn.access", "uvicorn.error", "uvicorn.asgi", "hypercorn.access", "hypercorn.error")
"""Who writes URLs: uvicorn says where each WebSocket was accepted, access log or not."""


class HideCredentials(logging.Filter):
    """Hides the values of `token` and `ticket` in every record that it sees."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, changed where it must be."""
        if isinstance(record.msg, str):
            record.msg = redact(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_hide, record.args))
        return True


def hide_credentials() -> None:
    """Have the servers' loggers hide credentials; once is enough, more do no harm."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, HideCredentials) for each in logger.filters):
            logger.addFilter(HideCredentials())


def _hide(value: Any) -> Any:
    if isinstance(value, dict):
        return redact(repr(value))  # a scope: uvicorn's log of all that happens has it
    return redact(value) if isinstance(value, str) else value
