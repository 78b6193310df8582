"""The door of a node: whom it lets in, what it says about those it does not, and how little of that."""

from __future__ import annotations

import logging

import pytest

from hubbub import Auth, Hub
from hubbub.core.arrival import Arrival
from hubbub.core.origins import Origins
from hubbub.errors import ConfigError
from hubbub.node.entrance import REMEMBERED, SPACING, Entrance

FRONT_END = Arrival("localhost:5000", ("http://localhost:5173",), "127.0.0.1")


class Clock:
    """Stands still."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def entrance(clock: Clock) -> Entrance:
    return Entrance(Origins(None), "hubbub_token", clock=clock)


def page(origin: str) -> Arrival:
    return Arrival("localhost:5000", (origin,), "127.0.0.1")


def test_who_may_come_comes(entrance: Entrance, caplog: pytest.LogCaptureFixture) -> None:
    assert entrance.check(page("http://localhost:5000")) is None
    assert entrance.check(Arrival("localhost:5000")) is None
    assert entrance.refused == 0
    assert not caplog.records


def test_who_may_not_is_refused_counted_and_told_about_with_the_line_that_mends_it(
    entrance: Entrance, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = entrance.check(FRONT_END)
    assert refusal is not None
    assert (refusal.status, refusal.body) == (403, b"this Origin is not allowed\n")
    assert entrance.refused == 1
    line = "refused origin http://localhost:5173: to allow it set HUBBUB_ORIGINS=http://localhost:5173"
    assert caplog.record_tuples == [("hubbub.entrance", logging.WARNING, line)]


def test_the_line_has_what_is_allowed_already(caplog: pytest.LogCaptureFixture) -> None:
    Entrance(Origins(["https://b.example", "https://a.example"]), None).check(FRONT_END)
    assert caplog.messages[0].endswith(
        "set HUBBUB_ORIGINS=https://a.example,https://b.example,http://localhost:5173",
    )


def test_the_line_says_where_the_list_is(caplog: pytest.LogCaptureFixture) -> None:
    assert Hub(origins=["https://a.example"]).node.entrance.check(FRONT_END) is not None
    assert caplog.messages == ["refused origin http://localhost:5173: to allow it add it to Hub(origins=...)"]


def test_an_origin_is_told_about_once(entrance: Entrance, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        assert entrance.check(FRONT_END) is not None
        clock.now += SPACING
    assert (len(caplog.messages), entrance.refused) == (1, 5)
    entrance.check(page("http://localhost:3000"))
    assert len(caplog.messages) == 2


def test_many_origins_are_told_about_one_at_a_time(
    entrance: Entrance, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(100):
        entrance.check(page(f"https://evil{number}.example"))
    assert len(caplog.messages) == 1
    clock.now += SPACING
    entrance.check(page("https://evil50.example"))
    assert len(caplog.messages) == 2, "one that was not told about is not forgotten"


def test_what_was_told_is_remembered_within_bounds(entrance: Entrance, clock: Clock) -> None:
    for number in range(2 * REMEMBERED):
        clock.now += SPACING
        entrance.check(page(f"https://evil{number}.example"))
    assert len(entrance._told) == REMEMBERED


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("null", "'null'"),
        ("x\r\nERROR root: forged", r"'x\r\nERROR root: forged'"),
        ("\x1b[31mred", r"'\x1b[31mred'"),
        ("\u202ehttps://a", r"'\u202ehttps://a'"),
        ("x" * 5000, f"'{'x' * 200}'"),
    ],
    ids=["null", "line breaks", "escape", "right to left", "long"],
)
def test_what_a_stranger_writes_stays_in_one_short_line(
    entrance: Entrance, caplog: pytest.LogCaptureFixture, said: str, logged: str
) -> None:
    assert entrance.check(page(said)) is not None
    assert caplog.messages == [f"refused origin {logged}: this Origin is not one"]


def test_no_origin_at_all_is_told_about_too(entrance: Entrance, caplog: pytest.LogCaptureFixture) -> None:
    refusal = entrance.check(Arrival("localhost:5000", has_cookie=True))
    assert refusal is not None
    assert refusal.status == 403
    assert caplog.messages == ["refused origin (none): a client with a cookie must say its Origin"]


# --- What a hub makes of its arguments and the environment -----------------------------------------------------------


@pytest.mark.parametrize(
    ("hub", "cookie", "status"),
    [
        pytest.param(Hub(), b"hubbub_token=x", 403, id="the cookie of tokens"),
        pytest.param(Hub(), b"session=x", None, id="another cookie"),
        pytest.param(Hub(auth=Auth(cookie="jar")), b"jar=x", 403, id="the cookie that Auth names"),
        pytest.param(Hub(auth=Auth(cookie="jar")), b"hubbub_token=x", None, id="the one it does not"),
        pytest.param(Hub(authenticator=lambda handshake: None), b"session=x", 403, id="an authenticator may read any"),
        pytest.param(Hub(origins=["*"]), b"hubbub_token=x", None, id="a public hub"),
    ],
)
def test_a_cookie_needs_an_origin_where_it_signs_in(hub: Hub, cookie: bytes, status: int | None) -> None:
    entrance = hub.node.entrance
    refusal = entrance.check(entrance.read([(b"cookie", cookie)], "127.0.0.1", secure=False))
    assert (refusal and refusal.status) == status


def test_the_environment_has_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_ORIGINS", " https://a.example , https://b.example:8443,")
    origins = Hub().node.entrance.origins
    assert {str(each) for each in origins.allowed} == {"https://a.example", "https://b.example:8443"}
    assert {str(each) for each in Hub(origins=["https://c.example"]).node.entrance.origins.allowed} == {
        "https://c.example"
    }


def test_a_list_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_ORIGINS", "a.example")
    with pytest.raises(ConfigError, match=r"'a\.example' is not an origin"):
        Hub()


async def test_the_hub_counts_them() -> None:
    async with Hub().running() as hub:
        hub.node.entrance.check(FRONT_END)
        assert (await hub.stats())["refused"] == 1
