"""What `hubbub.contracts.Store` promises, tried on every kind of store with a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress

import pytest

from hubbub.contracts import Store
from hubbub.core.inbox import FORGET_DEVICE, FORGET_KEY, MOST_DEVICES, Ack, Draft, Entry, Page, Standing
from hubbub.core.records import Journal, Kept, Record, Revocation
from hubbub.core.recovery import Publication
from hubbub.errors import StoreError
from tests.contract.stores import DATABASES, Fresh, make

NOW = 1_700_000_000_000
SECOND = 1000
MINUTE = 60 * SECOND
NEVER = NOW + 365 * 24 * 60 * MINUTE
CAP = 1000
HOSTILE = {
    "SQL": "'; DROP TABLE hubbub_messages; --",
    "quotes": "\"'`\"\"''",
    "placeholders": "%s %(x)s ? ?1 :user $1 {0} {x}",
    "operator": '{"$gt": ""}',
    "where": "$where",
    "dotted path": "a.b.$c.0",
    "markup": "<script>alert(1)</script>",
    "backslashes": "\\ \\\\ \\' \\x00 \\u0000",
    "wildcards": "% _ * > ?",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈",
    "right to left": "\u202eשבת مرحبا\u202c",
    "not normalised": "e\u0301 é",
    "number": "1e3",
    "null": "null",
    "case": "Ada ADA ada",
    "space at the end": " a ",
    "255 bytes": "é" * 127 + "x",
}
hostile = pytest.mark.parametrize("text", list(HOSTILE.values()), ids=list(HOSTILE))

Another = Callable[[], Awaitable[Store]]


@pytest.fixture(scope="module", params=list(DATABASES))
def fresh(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    with DATABASES[request.param]() as fresh:
        yield fresh


@pytest.fixture
async def another(fresh: Fresh) -> AsyncIterator[Another]:
    """Opens stores that share one fresh database."""
    url = fresh()
    async with AsyncExitStack() as stack:

        async def another() -> Store:
            store = make(url)
            await store.open()
            stack.push_async_callback(store.close)
            return store

        yield another


@pytest.fixture
async def store(another: Another) -> Store:
    return await another()


def draft(
    user_id: str = "ada", body: object = None, *, at: int = NOW, until: int = NEVER, key: str | None = None
) -> Draft:
    return Draft(user_id, "chat", json.dumps(body).encode(), at, until, key)


def record(offset: int, at: int, *, channel: str = "news", epoch: str = "e1") -> Record:
    return Record(channel, epoch, offset, None, b"{}", at)


def publication(
    offset: int, channel: str = "room:1", *, at: int = NOW, key: str | None = None, archive: bool = False
) -> Kept:
    return Kept(channel, Publication(offset, offset - 1, at, None, b"%d" % offset), MINUTE, key, archive)


async def trim(store: Store, floors: dict[str, int], *, archived: int = 0, forget: int = 0, watermark: int = 0) -> bool:
    return await store.trim("me", NEVER, watermark, floors, archived=archived, forget=forget)


async def offsets(store: Store, *, gone: bool | None = None) -> list[int]:
    """What is in the journal; only what its channels remember or have forgotten, if that is asked."""
    return [each.publication.offset for each in await store.kept(0, 1000) if gone is None or each.gone is gone]


async def put(store: Store, *drafts: Draft, cap: int = CAP) -> list[int]:
    """Append them; their cursors."""
    return [stored.cursor for stored in await store.append(drafts, cap)]


async def inbox(store: Store, user_id: str = "ada", after: int = 0, now: int = NOW) -> list[Entry]:
    """All of it; as time goes by, what somebody began to write and did not is given up."""
    entries: list[Entry] = []
    while True:
        page = await store.read(user_id, entries[-1].cursor if entries else after, 50, now)
        entries += page.entries
        if page.whole and not page.entries:
            return entries
        now += 0 if page.whole else SECOND


async def cursors(store: Store, user_id: str = "ada", now: int = NOW) -> list[int]:
    return [entry.cursor for entry in await inbox(store, user_id, now=now)]


# Opening


async def test_opening_makes_it_exist(fresh: Fresh) -> None:
    store = make(fresh())
    await store.open()
    try:
        assert store.exists
        assert store.place
    finally:
        await store.close()


async def test_what_was_kept_is_there_after_opening_anew(fresh: Fresh) -> None:
    store = make(url := fresh())
    await store.open()
    stored = await store.append([draft(body="hello", key="k")], CAP)
    await store.ack([Ack("bob", "", 1)], NOW)
    await store.revoke(Revocation("jti:1", NOW, NEVER))
    await store.archive([record(1, NOW)], "p")
    await store.close()
    again = make(url)
    await again.open()
    try:
        assert await inbox(again) == [Entry(stored[0].cursor, "chat", b'"hello"', NOW)]
        assert not (await again.append([draft(key="k")], CAP))[0].fresh
        assert await again.revocations(NOW) == [Revocation("jti:1", NOW, NEVER)]
        assert await again.archived("news", 10) == [record(1, NOW)]
        assert await again.archive_position() == "p"
    finally:
        await again.close()


async def test_several_may_open_a_fresh_database_at_once(another: Another) -> None:
    stores = await asyncio.gather(*(another() for _ in range(4)))
    assert await put(stores[0], draft()) == await cursors(stores[3])


async def test_a_closed_store_opens_again(fresh: Fresh) -> None:
    store = make(fresh())
    for _ in range(2):
        await store.open()
        await put(store, draft())
        await store.close()
    await store.open()
    try:
        assert len(await inbox(store)) == 2
    finally:
        await store.close()


# Inbox: order, cursors, pages


async def test_nothing_is_in_an_inbox_nobody_wrote_to(store: Store) -> None:
    assert await store.append([], CAP) == []
    assert await store.read("ada", 0, 10, NOW) == Page([])
    assert await store.standing("ada", "", NOW) == Standing(0, 0, 0)


async def test_messages_come_in_the_order_they_were_put(store: Store) -> None:
    first = await put(store, *(draft(body=number) for number in range(3)))
    second = await put(store, *(draft(body=number) for number in range(3, 5)))
    assert await inbox(store) == [
        Entry(cursor, "chat", str(number).encode(), NOW) for number, cursor in enumerate(first + second)
    ]
    assert first + second == sorted(set(first + second))
    assert first[0] >= 1


async def test_each_user_has_an_inbox_of_their_own(store: Store) -> None:
    await put(store, draft("ada", 1), draft("bob", 2), draft("ada", 3), draft("ADA", 4))
    payloads = {user: [entry.payload for entry in await inbox(store, user)] for user in ("ada", "bob", "ADA", "ad")}
    assert payloads == {"ada": [b"1", b"3"], "bob": [b"2"], "ADA": [b"4"], "ad": []}


async def test_a_batch_may_be_for_many_users(store: Store) -> None:
    stored = await store.append([draft(f"user-{number % 90}", number) for number in range(180)], CAP)
    assert all(each.fresh and not each.dropped for each in stored)
    for user in range(90):
        assert [entry.payload for entry in await inbox(store, f"user-{user}")] == [b"%d" % user, b"%d" % (user + 90)]


async def test_pages_follow_each_other(store: Store) -> None:
    put_in = await put(store, *(draft(body=number) for number in range(7)))
    first = await store.read("ada", 0, 3, NOW)
    second = await store.read("ada", first.entries[-1].cursor, 3, NOW)
    third = await store.read("ada", second.entries[-1].cursor, 3, NOW)
    assert [[entry.cursor for entry in page.entries] for page in (first, second, third)] == [
        put_in[:3],
        put_in[3:6],
        put_in[6:],
    ]
    assert await store.read("ada", put_in[-1] + 1000, 3, NOW) == Page([])


async def test_an_empty_payload_stays_empty(store: Store) -> None:
    await store.append([Draft("ada", "note", b"", NOW, NEVER)], CAP)
    assert [entry.payload for entry in await inbox(store)] == [b""]


async def test_a_large_payload_comes_back_whole(store: Store) -> None:
    body = "x" * (1 << 20)
    await put(store, draft(body=body))
    assert [json.loads(entry.payload) for entry in await inbox(store)] == [body]


# Inbox: keys


async def test_a_key_twice_in_one_batch_is_one_message(store: Store) -> None:
    first, other, again = await store.append([draft(body=1, key="k"), draft(body=2), draft(body=3, key="k")], CAP)
    assert (first.fresh, other.fresh, again.fresh) == (True, True, False)
    assert again.cursor == first.cursor
    assert [entry.payload for entry in await inbox(store)] == [b"1", b"2"]


@pytest.mark.parametrize("acked", [False, True], ids=["unread", "acked"])
async def test_a_known_key_is_the_first_message(store: Store, acked: bool) -> None:
    [first] = await store.append([draft(body=1, key="k")], CAP)
    if acked:
        await store.ack([Ack("ada", "", first.cursor)], NOW)
    later = NOW + FORGET_KEY - 1
    new, again = await store.append([draft(body=0, at=later), draft(body=2, key="k", at=later)], CAP)
    assert (again.fresh, again.cursor, new.fresh) == (False, first.cursor, True)
    assert [entry.payload for entry in await inbox(store)] == ([b"0"] if acked else [b"1", b"0"])


async def test_a_key_is_forgotten_in_time(store: Store) -> None:
    [first] = await store.append([draft(body=1, key="k")], CAP)
    later = NOW + FORGET_KEY
    [again] = await store.append([draft(body=2, key="k", at=later)], CAP)
    assert again.fresh
    assert again.cursor > first.cursor
    [third] = await store.append([draft(body=3, key="k", at=later + 1)], CAP)
    assert (third.fresh, third.cursor) == (False, again.cursor)


async def test_a_key_belongs_to_one_user(store: Store) -> None:
    stored = await store.append([draft("ada", key="k"), draft("bob", key="k"), draft("ada", key="K")], CAP)
    assert [each.fresh for each in stored] == [True, True, True]


async def test_a_key_that_races_is_one_message(another: Another) -> None:
    stores = [await another(), await another()]
    results = await asyncio.gather(*(stores[n % 2].append([draft(body=n, key="k")], CAP) for n in range(16)))
    assert sum(stored.fresh for [stored] in results) == 1
    assert len({stored.cursor for [stored] in results}) == 1
    assert len(await inbox(stores[0])) == 1


# Inbox: cap and expiry


async def test_past_the_cap_the_oldest_go(store: Store) -> None:
    stored = await store.append([draft(body=number) for number in range(5)], 3)
    assert sum(each.dropped for each in stored) == 2
    [one_more] = await store.append([draft(body=5)], 3)
    assert one_more.dropped == 1
    assert [entry.payload for entry in await inbox(store)] == [b"3", b"4", b"5"]
    assert (await store.standing("ada", "", NOW)).dropped == 3
    await store.ack([Ack("ada", "", stored[3].cursor)], NOW)
    standing = await store.standing("ada", "", NOW)
    assert (standing.dropped, standing.pending) == (0, 2)


async def test_the_cap_counts_what_is_there(store: Store) -> None:
    put_in = await put(store, *(draft(body=number) for number in range(3)), cap=3)
    await store.ack([Ack("ada", "", put_in[1])], NOW)
    stored = await store.append([draft(), draft()], 3)
    assert [each.dropped for each in stored] == [0, 0]
    assert len(await inbox(store)) == 3


async def test_expired_messages_make_room_first(store: Store) -> None:
    await put(store, draft(body="long"), *(draft(until=NOW + MINUTE) for _ in range(2)), cap=3)
    stored = await store.append([draft(at=NOW + MINUTE), draft(at=NOW + MINUTE)], 3)
    assert [each.dropped for each in stored] == [0, 0]
    assert len(await inbox(store, now=NOW + MINUTE)) == 3


async def test_another_inbox_is_not_touched_by_a_cap(store: Store) -> None:
    await put(store, *(draft("bob") for _ in range(3)))
    await put(store, *(draft("ada") for _ in range(5)), cap=2)
    assert (len(await inbox(store, "ada")), len(await inbox(store, "bob"))) == (2, 3)


async def test_an_expired_message_is_not_read(store: Store) -> None:
    put_in = await put(store, draft(until=NOW + MINUTE), draft(), draft(until=NOW + MINUTE + 1))
    assert await cursors(store, now=NOW + MINUTE - 1) == put_in
    assert await cursors(store, now=NOW + MINUTE) == put_in[1:]
    assert await cursors(store, now=NOW + MINUTE + 1) == put_in[1:2]
    assert (await store.standing("ada", "", NOW + MINUTE)).pending == 2


# Inbox: acks and devices


async def test_an_ack_forgets(store: Store) -> None:
    put_in = await put(store, *(draft(body=number) for number in range(4)))
    await store.ack([Ack("ada", "", put_in[1])], NOW)
    assert await cursors(store) == put_in[2:]
    assert await store.standing("ada", "", NOW) == Standing(put_in[1], 2, 0)


async def test_an_ack_never_goes_back(store: Store) -> None:
    put_in = await put(store, *(draft() for _ in range(3)))
    await store.ack([Ack("ada", "", put_in[2])], NOW)
    await store.ack([Ack("ada", "", put_in[0]), Ack("ada", "", 0)], NOW)
    assert (await store.standing("ada", "", NOW)).acked == put_in[2]


async def test_several_acks_at_once(store: Store) -> None:
    ada = await put(store, *(draft("ada") for _ in range(3)))
    bob = await put(store, *(draft("bob") for _ in range(3)))
    acks = [Ack("bob", "", bob[2]), Ack("ada", "", ada[0]), Ack("ada", "", ada[1]), Ack("ada", "", ada[0])]
    await store.ack(acks, NOW)
    await store.ack([], NOW)
    assert (await cursors(store, "ada"), await cursors(store, "bob")) == (ada[2:], [])


async def test_an_ack_reaches_no_further_than_the_inbox(store: Store) -> None:
    await put(store, draft())
    await store.ack([Ack("ada", "", 1 << 80)], NOW)
    put_in = await put(store, draft())
    assert await cursors(store) == put_in
    assert (await store.standing("ada", "", NOW)).pending == 1


async def test_cursors_go_on_behind_what_was_forgotten(store: Store) -> None:
    [first] = await put(store, draft())
    await store.ack([Ack("ada", "", first)], NOW)
    await store.sweep(NOW)
    [second] = await put(store, draft())
    assert second > first


async def test_a_message_stays_until_every_device_has_it(store: Store) -> None:
    put_in = await put(store, *(draft() for _ in range(3)))
    for device in ("phone", "laptop"):
        assert await store.standing("ada", device, NOW) == Standing(put_in[0] - 1, 3, 0)
    await store.ack([Ack("ada", "phone", put_in[2])], NOW)
    assert await cursors(store) == put_in
    assert (await store.standing("ada", "phone", NOW)).pending == 0
    assert (await store.standing("ada", "laptop", NOW)).pending == 3
    await store.ack([Ack("ada", "laptop", put_in[1])], NOW)
    assert await cursors(store) == put_in[2:]


async def test_a_new_device_starts_with_the_oldest_message_kept(store: Store) -> None:
    put_in = await put(store, *(draft() for _ in range(3)))
    await store.ack([Ack("ada", "phone", put_in[1])], NOW)
    standing = await store.standing("ada", "laptop", NOW)
    assert standing.pending == 1
    assert [entry.cursor for entry in await inbox(store, after=standing.acked)] == put_in[2:]


# Undelivered messages


async def test_a_message_is_claimed_once(store: Store) -> None:
    put_in = await put(store, draft("ada", 1), draft("ada", 2, at=NOW + 1), draft("ada", 3, at=NOW + 2))
    claimed = await store.claim(NOW + 2, 10, NOW + 2)
    expected = [("ada", Entry(put_in[0], "chat", b"1", NOW)), ("ada", Entry(put_in[1], "chat", b"2", NOW + 1))]
    assert sorted(claimed, key=lambda pair: pair[1].cursor) == expected
    assert await store.claim(NOW + 2, 10, NOW + 2) == []
    assert [entry.payload for _, entry in await store.claim(NOW + 3, 10, NOW + 3)] == [b"3"]
    assert await cursors(store) == put_in


async def test_a_claim_takes_no_more_than_it_is_asked_to(store: Store) -> None:
    await put(store, *(draft(f"user-{number}") for number in range(5)))
    sizes = [len(await store.claim(NOW + 1, 3, NOW)) for _ in range(3)]
    assert sizes == [3, 2, 0]


async def test_what_a_device_has_or_nobody_wants_is_not_claimed(store: Store) -> None:
    put_in = await put(store, draft(body=1), draft(body=2), draft(body=3, until=NOW + MINUTE), draft(body=4))
    await store.standing("ada", "laptop", NOW)
    await store.ack([Ack("ada", "phone", put_in[1])], NOW)
    claimed = await store.claim(NOW + MINUTE, 10, NOW + MINUTE)
    assert [entry.payload for _, entry in claimed] == [b"4"]


async def test_two_that_claim_get_different_messages(another: Another) -> None:
    stores = [await another(), await another()]
    await put(stores[0], *(draft(f"user-{number}") for number in range(40)))
    rounds = await asyncio.gather(*(stores[n % 2].claim(NOW + 1, 10, NOW) for n in range(8)))
    rest = await stores[0].claim(NOW + 1, 100, NOW)
    users = [user for claimed in (*rounds, rest) for user, _ in claimed]
    assert sorted(users) == sorted(f"user-{number}" for number in range(40))


# Revoked tokens


async def test_a_revocation_counts_until_it_expires(store: Store) -> None:
    token, user = Revocation("jti:1", NOW, NOW + MINUTE), Revocation("user:ada", NOW, NOW + 2 * MINUTE)
    await store.revoke(token)
    await store.revoke(user)
    assert sorted(await store.revocations(NOW), key=lambda each: each.subject) == [token, user]
    assert await store.revocations(NOW + MINUTE) == [user]


async def test_a_later_revocation_replaces(store: Store) -> None:
    await store.revoke(Revocation("user:ada", NOW, NOW + MINUTE))
    later = Revocation("user:ada", NOW + 1, NOW + 2 * MINUTE)
    await store.revoke(later)
    assert await store.revocations(NOW) == [later]


# The journal


@pytest.fixture
async def journal(store: Store) -> Store:
    """A store whose journal is mine."""
    await store.take_journal("me", "e1", NOW, NEVER, None)
    return store


async def test_one_at_a_time_has_the_journal(another: Another) -> None:
    mine, yours = await another(), await another()
    first = Journal("e1", 0, 0, "me", NOW + MINUTE)
    assert await mine.take_journal("me", "e1", NOW, NOW + MINUTE, None) == first
    assert await yours.take_journal("you", "e2", NOW, NOW + MINUTE, None) == first
    assert await mine.take_journal("me", "e3", NOW + 1, NOW + 2 * MINUTE, None) == Journal(
        "e1", 0, 0, "me", NOW + 2 * MINUTE
    )
    assert (await yours.take_journal("you", "e2", NOW + 2 * MINUTE, NEVER, None)).owner == "you"
    assert (await mine.take_journal("me", "e1", NOW + 2 * MINUTE, NEVER, None)).owner == "you"


async def test_several_that_want_the_journal_agree(another: Another) -> None:
    stores = [await another() for _ in range(4)]
    taken = (store.take_journal(f"{n}", f"e{n}", NOW, NEVER, None) for n, store in enumerate(stores))
    assert len({(each.owner, each.epoch) for each in await asyncio.gather(*taken)}) == 1


async def test_the_journal_of_one_that_died_is_free(store: Store) -> None:
    await store.take_journal("me", "e1", NOW, NEVER, None)
    assert (await store.take_journal("you", "e2", NOW, NEVER, "somebody")).owner == "me"
    assert (await store.take_journal("you", "e2", NOW, NEVER, "me")).owner == "you"


async def test_who_lost_the_journal_writes_nothing(journal: Store) -> None:
    await journal.keep("me", 0, [publication(1)])
    await journal.take_journal("you", "e2", NEVER, NEVER, None)
    assert not await journal.keep("me", 1, [publication(2)])
    assert not await trim(journal, {"room:1": 1})
    assert await offsets(journal, gone=False) == [1]
    assert (await journal.take_journal("you", "e2", NOW, NEVER, None)).head == 1


async def test_the_journal_gives_back_what_was_kept(journal: Store) -> None:
    full = Publication(7, 3, NOW + 1, "said", b'"x"', {"key": "k", "a.b": "$c"})
    entries = [publication(3, archive=True), Kept("room:2", full, MINUTE, "ada\nk")]
    assert await journal.keep("me", 0, entries)
    assert await journal.kept(0, 10) == entries
    assert await journal.kept(0, 1) == entries[:1]
    assert await journal.kept(3, 10) == entries[1:]
    assert await journal.kept(0, 10, archive=True) == entries[:1]
    assert (await journal.take_journal("me", "e2", NOW, NEVER, None)).head == 7


async def test_what_a_failed_write_left_is_gone_with_the_next(journal: Store) -> None:
    await journal.keep("me", 0, [publication(1), publication(2)])
    await journal.keep("me", 1, [publication(4)])
    assert await offsets(journal) == [1, 4]


async def test_the_journal_forgets_what_its_channels_do(journal: Store) -> None:
    await journal.keep("me", 0, [publication(1), publication(2, "room:2"), publication(3), publication(4)])
    assert await trim(journal, {"room:1": 3}, watermark=3)
    assert await offsets(journal) == [2, 4]
    assert (await journal.take_journal("me", "e2", NOW, NEVER, None)).watermark == 3


async def test_the_journal_holds_what_the_archive_does_not_have(journal: Store) -> None:
    await journal.keep("me", 0, [publication(n, archive=True) for n in (1, 2, 3)])
    await trim(journal, {"room:1": 3}, archived=1)
    assert (await offsets(journal, gone=True), await offsets(journal, gone=False)) == ([2, 3], [])
    await trim(journal, {}, archived=3)
    assert await offsets(journal) == []


async def test_the_journal_holds_keys_for_their_time(journal: Store) -> None:
    await journal.keep("me", 0, [publication(1, key="k"), publication(2, key="l", at=NOW + 1)])
    await trim(journal, {"room:1": 2}, forget=NOW)
    assert await offsets(journal, gone=True) == [2]


async def test_a_publication_that_is_there_already_fails_with_all_of_its_batch(journal: Store) -> None:
    await journal.keep("me", 0, [publication(1)])
    with pytest.raises(StoreError):
        await journal.keep("me", 1, [publication(2), publication(3), publication(1)])
    await journal.keep("me", 1, [publication(4)])
    assert await offsets(journal) == [1, 4]


# The archive


async def test_the_archive_keeps_tags(store: Store) -> None:
    tagged = Record("news", "e1", 1, None, b"{}", NOW, {"key": "k", "a.b": "$c"})
    await store.archive([tagged], "p")
    assert await store.archived("news", 10) == [tagged]


async def test_the_archive_keeps_each_record_once(store: Store) -> None:
    records = [record(1, NOW), record(2, NOW), record(5, NOW + 1), Record("news", "e1", 6, "named", b'"x"', NOW + 1)]
    assert await store.archive_position() is None
    await store.archive(records[:3], "a")
    await store.archive(records[1:], "b")
    await store.archive([], "c")
    assert await store.archived("news", 10) == records
    assert await store.archive_position() == "c"


async def test_the_archive_is_read_in_pages(store: Store) -> None:
    records = [record(number * 3, NOW + number // 2) for number in range(1, 8)]
    await store.archive([*records, record(4, NOW, channel="other")], "p")
    first = await store.archived("news", 3)
    second = await store.archived("news", 3, after=(first[-1].epoch, first[-1].offset))
    third = await store.archived("news", 3, after=(second[-1].epoch, second[-1].offset))
    assert first + second + third == records
    assert await store.archived("news", 3, after=("e1", records[-1].offset)) == []


async def test_the_archive_is_read_backwards(store: Store) -> None:
    records = [record(number * 3, NOW + number // 2) for number in range(1, 8)]
    await store.archive([*records, record(4, NOW, channel="other")], "p")
    last = await store.archived("news", 3, back=True)
    middle = await store.archived("news", 3, after=(last[0].epoch, last[0].offset), back=True)
    first = await store.archived("news", 3, after=(middle[0].epoch, middle[0].offset), back=True)
    assert first + middle + last == records
    assert len(first) == 1
    assert await store.archived("news", 3, after=("e1", records[0].offset), back=True) == []
    assert await store.archived("news", 3, after=("e1", 99), back=True) == []
    assert await store.archived("news", 9, after=("e1", records[-1].offset), since=NOW + 2, back=True) == records[3:6]


async def test_the_archive_goes_on_in_a_new_epoch(store: Store) -> None:
    records = [record(8, NOW, epoch="b"), record(9, NOW + 1, epoch="b"), record(1, NOW + 2, epoch="a")]
    await store.archive(records, "p")
    assert await store.archived("news", 10) == records
    assert await store.archived("news", 10, after=("b", 9)) == records[2:]


async def test_the_archive_is_read_from_a_time(store: Store) -> None:
    records = [record(number, NOW + number) for number in range(5)]
    await store.archive(records, "p")
    assert await store.archived("news", 10, since=NOW + 3) == records[3:]
    assert await store.archived("news", 10, since=NOW + 3, after=("e1", 0)) == records[3:]
    assert await store.archived("news", 1, since=NOW + 1, after=("e1", 2)) == records[3:4]


@pytest.mark.parametrize("after", [("e1", 99), ("e2", 1)], ids=["offset", "epoch"])
async def test_nothing_is_behind_an_unknown_record(store: Store, after: tuple[str, int]) -> None:
    await store.archive([record(1, NOW), record(2, NOW)], "p")
    assert await store.archived("news", 10, after=after) == []
    assert await store.archived("nowhere", 10) == []


# Care


async def test_a_sweep_deletes_what_has_expired(store: Store) -> None:
    put_in = await put(store, draft(until=NOW + MINUTE, key="k"), draft(until=NOW + MINUTE + 1))
    await store.revoke(Revocation("jti:1", NOW, NOW + MINUTE))
    await store.archive([record(1, NOW)], "p")
    await store.sweep(NOW + MINUTE)
    assert await cursors(store, now=NOW) == put_in[1:]
    assert await store.revocations(NOW) == []
    assert not (await store.append([draft(key="k")], CAP))[0].fresh
    await store.sweep(NOW + FORGET_KEY)
    assert (await store.append([draft(key="k")], CAP))[0].fresh
    assert await store.archived("news", 10) == [record(1, NOW)]


async def test_a_device_that_stays_away_is_forgotten(store: Store) -> None:
    put_in = await put(store, draft(), draft())
    await store.standing("ada", "lost", NOW)
    await store.ack([Ack("ada", "phone", put_in[0])], NOW + FORGET_DEVICE)
    await store.sweep(NOW + FORGET_DEVICE - 1)
    await store.ack([Ack("ada", "phone", put_in[1])], NOW + FORGET_DEVICE)
    assert await cursors(store) == put_in
    await store.sweep(NOW + FORGET_DEVICE)
    await store.ack([Ack("ada", "phone", put_in[1])], NOW + FORGET_DEVICE)
    assert await cursors(store) == []


async def test_of_too_many_devices_the_one_not_seen_for_longest_is_forgotten(store: Store) -> None:
    [first, last] = [stored.cursor for stored in await store.append([draft(), draft()], CAP)]
    for number in range(MOST_DEVICES):
        await store.standing("ada", f"device {number}", NOW + number)
        await store.ack([Ack("ada", f"device {number}", last)] if number else [], NOW + number)
    await store.standing("bob", "device 0", NOW)
    assert len((await store.read("ada", 0, 10, NOW)).entries) == 2, "device 0 has not read them"
    later = NOW + MOST_DEVICES
    assert (await store.standing("ada", "one more", later)).acked == first - 1
    await store.ack([Ack("ada", "one more", last)], later)
    assert (await store.read("ada", 0, 10, NOW)).entries == []


async def test_a_device_that_comes_back_is_kept(store: Store) -> None:
    put_in = await put(store, draft())
    await store.standing("ada", "tablet", NOW)
    await store.standing("ada", "tablet", NOW + FORGET_DEVICE - 1)
    await store.sweep(NOW + FORGET_DEVICE)
    await store.ack([Ack("ada", "phone", put_in[0])], NOW + FORGET_DEVICE)
    assert await cursors(store) == put_in


# Hostile texts are data


@hostile
async def test_any_text_is_data_in_an_inbox(store: Store, text: str) -> None:
    await put(store, draft("ada", key="k"))
    [first, again] = await store.append(
        [Draft(text, text, json.dumps(text).encode(), NOW, NEVER, text), draft(text, key=text)], CAP
    )
    assert (again.fresh, again.cursor) == (False, first.cursor)
    assert not (await store.append([draft(text, key=text)], CAP))[0].fresh
    entry = Entry(first.cursor, text, json.dumps(text).encode(), NOW)
    assert await inbox(store, text) == [entry]
    assert await store.standing(text, text, NOW) == Standing(first.cursor - 1, 1, 0)
    assert (text, entry) in await store.claim(NOW + 1, 10, NOW)
    await store.ack([Ack(text, text, first.cursor)], NOW)
    assert await inbox(store, text) == []
    assert len(await inbox(store, "ada")) == 1


@hostile
async def test_any_text_is_data_elsewhere(store: Store, text: str) -> None:
    kept = [Record(text, text, 1, text, text.encode(), NOW), Record("news", text, 2, None, b"", NOW)]
    await store.archive(kept, text)
    assert await store.archived(text, 10) == kept[:1]
    assert await store.archived(text, 10, after=(text, 1)) == []
    assert await store.archive_position() == text
    revocation = Revocation(f"user:{text}", NOW, NEVER)
    await store.revoke(revocation)
    assert await store.revocations(NOW) == [revocation]
    await store.take_journal(text, text, NOW, NEVER, text)
    entries = [Kept(text, Publication(1, 0, NOW, text, text.encode(), {text: text}), MINUTE, text)]
    entries += [publication(2)]
    assert await store.keep(text, 0, entries)
    assert await store.kept(0, 10) == entries
    assert await store.trim(text, NEVER, 0, {text: 1}, archived=0, forget=NOW)
    assert await store.kept(0, 10) == entries[1:]


# Many at once


async def test_what_becomes_visible_comes_in_order(another: Another) -> None:
    """Two stores race 64 senders; a third reads and acks as it goes, and must miss nothing."""
    stores, reader = [await another(), await another()], await another()
    senders, rounds = 64, 4
    seen: list[Entry] = []
    done = asyncio.Event()

    async def send(sender: int) -> dict[int, tuple[int, int]]:
        cursors = {}
        for number in range(rounds):
            [stored, _] = await stores[sender % 2].append([draft("ada", [sender, number]), draft(f"u{sender}")], CAP)
            cursors[stored.cursor] = (sender, number)
        return cursors

    async def read() -> None:
        finished = False
        while not finished:
            finished = done.is_set()
            while (page := await reader.read("ada", seen[-1].cursor if seen else 0, 7, NOW)).entries or not page.whole:
                seen.extend(page.entries)
                if page.entries:
                    await reader.ack([Ack("ada", "", page.entries[-1].cursor)], NOW)

    reading = asyncio.create_task(read())
    sent = await asyncio.gather(*(send(sender) for sender in range(senders)))
    done.set()
    await reading
    expected = {cursor: message for each in sent for cursor, message in each.items()}
    assert len(expected) == senders * rounds
    assert {entry.cursor: tuple(json.loads(entry.payload)) for entry in seen} == expected
    assert [entry.cursor for entry in seen] == sorted(expected)
    for sender in range(senders):
        mine = [number for entry in seen for who, number in [json.loads(entry.payload)] if who == sender]
        assert mine == list(range(rounds))
    assert (await reader.standing("ada", "", NOW)).pending == 0


async def test_a_cancelled_caller_breaks_nothing(store: Store) -> None:
    for turns in range(12):
        calls = [asyncio.create_task(store.append([draft(body=[turns, number])], CAP)) for number in range(4)]
        calls.append(asyncio.create_task(store.read("ada", 0, 10, NOW)))  # type: ignore[arg-type]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        for call in calls:
            with suppress(asyncio.CancelledError):
                await call
    [last] = await put(store, draft(body="last"))
    entries = await inbox(store)
    assert entries[-1] == Entry(last, "chat", b'"last"', NOW)
    assert len({entry.payload for entry in entries}) == len(entries)
