"""What a publisher may put on a message beside its data: what happened, a key that names it, and tags."""

from __future__ import annotations

from collections.abc import Mapping

from hubbub.errors import UsageError

__all__ = ["check_event", "check_key", "check_tags", "check_text"]

LONGEST = 255
MOST_TAGS = 16


def check_text(value: str, what: str) -> str:
    """Give back what has to be a text, as a type or a user's id.

    Args:
        value: what the app gave.
        what: what it is, for the message.

    Raises:
        UsageError: it is none, as where a number or the payload stands in its place.
    """
    if isinstance(value, str):
        return value
    raise UsageError(f"{what} is a text, and this is of type {type(value).__name__}.")


def check_event(event: str | None) -> str | None:
    """Give back what happened.

    Raises:
        UsageError: it is no text, as where the data stands in its place.
    """
    if event is None or isinstance(event, str):
        return event
    kind = type(event).__name__
    raise UsageError(f"An event is a text or None, and this is a {kind}: publish(channel, event, data).")


def check_key(key: str) -> str:
    """Give back a key that is fit to use.

    Raises:
        UsageError: no text, empty, over 255 bytes of UTF-8, or with what cannot be printed.
    """
    if not (check_text(key, "A key").isprintable() and 0 < len(key.encode("utf-8", "replace")) <= LONGEST):
        raise UsageError(f"A key has 1 to {LONGEST} bytes, all of them printable.")
    return key


def check_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    """Give back tags that are fit to use.

    Raises:
        UsageError: more than 16, or a text of more than 255 letters.
    """
    if not isinstance(tags, Mapping):
        raise UsageError(f"Tags are a dict of texts by name, and this is a {type(tags).__name__}.")
    texts = [check_text(text, "Each tag") for text in (*tags, *tags.values())]
    if len(tags) > MOST_TAGS or any(len(text) > LONGEST for text in texts):
        raise UsageError(f"Tags are at most {MOST_TAGS} short texts, by name.")
    return tags
