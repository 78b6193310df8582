"""Log records as text that nobody can forge a line in: an error's message may have what a client sent."""

from __future__ import annotations

import logging
import re

__all__ = ["LineFormatter"]

LONGEST = 16 * 1024
"""Characters of a record; a traceback is kept at both ends."""
MARGIN = "\n    "

# Control characters but tabs and line feeds, C1 ones too, and what some readers take for the end of a line.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class LineFormatter(logging.Formatter):
    """Writes a record so that only its first line begins at the margin, with control characters escaped and bounded."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines, all but the first one indented."""
        text = super().format(record)
        if len(text) > LONGEST:
            half = LONGEST // 2
            text = f"{text[:half]}\n[{len(text) - LONGEST} characters left out]\n{text[-half:]}"
        return _CONTROL.sub(_escape, text).replace("\n", MARGIN)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
