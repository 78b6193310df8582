"""How many migrations a database still needs, asked without doing any."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hubbub.errors import StoreError
from tests.contract.stores import DATABASES, Fresh, make


@pytest.fixture(params=["sqlite", "postgres", "mongo"], scope="module")
def fresh(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    with DATABASES[request.param]() as fresh:
        yield fresh


async def test_what_is_pending_is_what_open_does(fresh: Fresh) -> None:
    url = fresh()
    store = make(url)
    before = await store.pending()
    assert before > 0
    assert await store.pending() == before
    await store.open()
    assert await store.pending() == 0
    await store.close()
    assert await make(url).pending() == 0


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/x", "mongodb://127.0.0.1:1/x"])
async def test_where_nobody_answers(url: str) -> None:
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1/x"):
        await make(url).pending()
