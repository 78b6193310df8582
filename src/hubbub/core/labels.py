"""What a publisher may put on a message beside its data: what happened, a key that names it, and tags."""

from __future__ import annotations

from collections.abc import Mapping

from hubbub.errors import UsageError

__all__ = ["check_event", "check_key", "check_tags"]

LONGEST = 255
MOST_TAGS = 16


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
        UsageError: empty, over 255 bytes of UTF-8, or with what cannot be printed.
    """
    if not (key.isprintable() and 0 < len(key.encode("utf-8", "replace")) <= LONGEST):
        raise UsageError(f"A key has 1 to {LONGEST} bytes, all of them printable.")
    return key


def check_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    """Give back tags that are fit to use.

    Raises:
        UsageError: more than 16, or a text of more than 255 letters.
    """
    texts = [*tags, *tags.values()]
    if len(tags) > MOST_TAGS or any(len(text) > LONGEST for text in texts):
        raise UsageError(f"Tags are at most {MOST_TAGS} short texts, by name.")
    return tags
