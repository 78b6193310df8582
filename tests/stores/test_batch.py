"""Where drafts go, without a database."""

from __future__ import annotations

import pytest

from hubbub.core.inbox import FORGET_KEY, Draft, Stored
from hubbub.stores.batch import Batch


def draft(user_id: str = "ada", key: str | None = None) -> Draft:
    return Draft(user_id, "chat", b"{}", 1, 2, key)


def test_cursors_end_at_the_heads() -> None:
    batch = Batch([draft("ada"), draft("bob"), draft("ada")], {})
    heads = {"ada": 7, "bob": 1}
    assert batch.counts == {"ada": 2, "bob": 1}
    rows = batch.messages(heads, {"ada": 20, "bob": 30})
    assert [(inbox, cursor) for inbox, cursor, *_ in rows] == [(20, 6), (30, 1), (20, 7)]
    assert batch.stored(heads, {}) == [Stored(6), Stored(1), Stored(7)]


def test_known_and_repeated_keys_are_not_fresh() -> None:
    drafts = [draft(key="old"), draft(key="new"), draft(), draft(key="new"), draft("bob", "old")]
    batch = Batch(drafts, {("ada", "old"): 3})
    heads = {"ada": 10, "bob": 1}
    assert batch.keys(heads) == [("ada", "new", 9, 1 + FORGET_KEY), ("bob", "old", 1, 1 + FORGET_KEY)]
    assert batch.stored(heads, {}) == [
        Stored(3, fresh=False),
        Stored(9),
        Stored(10),
        Stored(9, fresh=False),
        Stored(1),
    ]


def test_a_batch_may_have_nothing_fresh() -> None:
    batch = Batch([draft(key="old")], {("ada", "old"): 3})
    assert (batch.counts, batch.messages({}, {}), batch.stored({}, {})) == ({}, [], [Stored(3, fresh=False)])


@pytest.mark.parametrize(
    ("lost", "shares"),
    [(0, [0, 0, 0]), (1, [0, 0, 1]), (2, [0, 1, 1]), (3, [1, 1, 1]), (7, [5, 1, 1])],
)
def test_the_last_drafts_cost_one_message_each(lost: int, shares: list[int]) -> None:
    batch = Batch([draft() for _ in range(3)], {})
    assert [stored.dropped for stored in batch.stored({"ada": 3}, {"ada": lost, "bob": 9})] == shares
