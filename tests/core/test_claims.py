"""Names that one owner has for a time."""

from __future__ import annotations

from hubbub.core.claims import FEW, Claims


def test_a_name_has_one_owner_until_its_time_is_over() -> None:
    claims = Claims()

    assert claims.claim("archiver", "a", now=0.0, until=10.0)
    assert not claims.claim("archiver", "b", now=9.9, until=20.0)
    assert claims.claim("archiver", "b", now=10.0, until=20.0)
    assert not claims.claim("archiver", "a", now=11.0, until=30.0)


def test_an_owner_has_its_name_on() -> None:
    claims = Claims()

    assert claims.claim("archiver", "a", now=0.0, until=10.0)
    assert claims.claim("archiver", "a", now=5.0, until=15.0)
    assert not claims.claim("archiver", "b", now=12.0, until=20.0)


def test_what_has_ended_is_forgotten() -> None:
    claims = Claims()

    for number in range(100 * FEW):
        claims.claim(f"ticket {number}", "a", now=float(number), until=number + 1.0)

    assert len(claims) <= FEW
