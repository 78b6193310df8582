from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hubbub.core.labels import check_event, check_key, check_tags
from hubbub.errors import UsageError


@pytest.mark.parametrize(
    ("check", "label"),
    [
        (check_event, None),
        (check_event, ""),
        (check_event, "moved"),
        (check_key, "order-17"),
        (check_key, "ü" * 127),
        (check_tags, {}),
        (check_tags, {"key": "a" * 255}),
    ],
)
def test_what_is_fit_comes_back(check: Callable[[Any], Any], label: Any) -> None:
    assert check(label) is label


@pytest.mark.parametrize(
    ("check", "label", "said"),
    [
        (check_event, {"x": 1}, r"this is a dict: publish\(channel, event, data\)"),
        (check_event, b"moved", "this is a bytes"),
        (check_key, "", "1 to 255 bytes"),
        (check_key, "ü" * 128, "1 to 255 bytes"),
        (check_key, "a\nb", "printable"),
        (check_tags, {str(number): "" for number in range(17)}, "at most 16"),
        (check_tags, {"key": "a" * 256}, "short texts"),
    ],
)
def test_what_is_not_is_refused_in_words(check: Callable[[Any], Any], label: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check(label)
