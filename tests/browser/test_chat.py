"""The reference app in a real browser: people talk, come and go, lose the network and the server, and miss nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.browser.conftest import SERVE, Open
from tests.browser.people import (
    COMES_BACK,
    both,
    bring,
    create,
    entry,
    joined,
    say,
    second_tab,
    shows,
    sign,
    unread,
)
from tests.serving import Process, free_port, process

pytestmark = pytest.mark.asyncio(loop_scope="module")

# In the page: the modules are those that it runs.
WRITE = """async (texts) => {
  const { outbox } = await import("/page/outbox.js");
  for (const text of texts) outbox.add("room:lobby", text);
}"""
SAY_ALL = """async (texts) => {
  const { link } = await import("/page/link.js");
  const asked = texts.map((data) => link.request("publish", { channel: "room:lobby", data }, 60_000));
  await Promise.all(asked);
}"""
LOSE_THE_ANSWER = """async () => {
  const { link } = await import("/page/link.js");
  const { socket } = link;
  socket.onmessage = ({ data }) => JSON.parse(data).type === "published" && socket.close();
}"""
ANNOUNCE = """async () => {
  const headers = { "Content-Type": "application/json" };
  return (await fetch("api/announce", { method: "POST", headers, body: '{"message": "Mine!"}' })).status;
}"""
SPY = """async (name) => {
  const { link } = await import("/page/link.js");
  const found = await (await fetch(`api/messages?conversation=${encodeURIComponent(name)}`)).json();
  const asked = [["publish", { channel: name, data: "hi" }], ["subscribe", { channel: name }]];
  const answers = await Promise.allSettled(asked.map(([type, payload]) => link.request(type, payload)));
  return [found, ...answers.map(({ reason }) => reason?.code)];
}"""


LOOK = """async (channel) => {
  const { link } = await import("/page/link.js");
  const past = { channel, archive: true, back: true };
  const asked = [["history", { channel }], ["history", past], ["presence", { channel }]];
  const answers = await Promise.allSettled(asked.map(([type, payload]) => link.request(type, payload)));
  return answers.map(({ reason }) => reason?.code);
}"""
LONG_AGO = """async () => {
  const { outbox } = await import("/page/outbox.js");
  const { model } = await import("/page/model.js");
  const [said] = model.get("room:lobby").messages;
  const heard = said.timestamp - 10 * 60_000;
  outbox.entries.push({ key: said.key, conversation: "room:lobby", text: said.message, at: 0, heard });
  await outbox.flush();
  return outbox.entries.length;
}"""


class Server:
    """The app with its own data, on one port; it can be stopped and started again."""

    def __init__(self, data: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._data = str(data)
        self._stack = AsyncExitStack()
        self._process: Process

    async def start(self) -> None:
        """Serve."""
        started = process(*SERVE, str(self.port), HUBBUB_DATA_DIR=self._data)
        self._process = await self._stack.enter_async_context(started)
        await self._process.says("WebSocket")

    async def stop(self) -> None:
        """Stop in order."""
        self._process.child.terminate()
        assert await self._process.end() == 0
        await self._stack.aclose()

    async def kill(self) -> None:
        """End at once."""
        self._process.child.kill()
        await self._process.end()
        await self._stack.aclose()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """The app, with nobody in it."""
    async with Server(tmp_path) as server:
        yield server


@pytest.fixture
def site(server: Server) -> str:
    """What paths of `tab` belong to."""
    return server.url


# Talking


async def test_two_people_talk_in_a_room(tab: Open) -> None:
    ann, bob = await both(tab)
    await say(ann, "hello room")
    await shows(bob, "hello room")
    await say(bob, "hello ann")
    for page in (ann, bob):
        await shows(page, "hello room", "hello ann")
    await expect(ann.locator("#messages .mine")).to_have_text(re.compile("hello room"))
    await expect(bob.locator("#messages .meta b").first).to_have_text("ann")


async def test_two_people_talk_to_each_other(tab: Open) -> None:
    ann, bob = await both(tab)
    await entry(ann, "user:bob").click()
    await say(ann, "just for you")
    await expect(ann.locator("#messages .note")).to_have_text("sent")
    await expect(unread(bob, "user:ann")).to_have_text("1")
    await expect(bob.locator(".toast", has_text="just for you")).to_be_visible()
    await shows(bob)
    await entry(bob, "user:ann").click()
    await shows(bob, "just for you")
    await expect(unread(bob, "user:ann")).to_be_hidden()
    await say(bob, "thank you")
    await shows(ann, "just for you", "thank you")


async def test_a_third_person_sees_nothing_of_two(tab: Open) -> None:
    ann, bob = await both(tab)
    eve = await joined(tab, "eve")
    await entry(ann, "user:bob").click()
    await say(ann, "secret")
    await expect(unread(bob, "user:ann")).to_have_text("1")
    await entry(eve, "user:ann").click()
    await say(eve, "hi ann")
    await shows(eve, "hi ann")
    for name in ("pair:ann+bob", "user:ann+bob", "bob"):
        assert await eve.evaluate(SPY, name) == [[], "forbidden", "bad_channel"]
    await expect(eve.locator("body")).not_to_contain_text("secret")


async def test_who_types(tab: Open) -> None:
    ann, bob = await both(tab)
    await bob.locator("#text").press_sequentially("hel")
    await expect(ann.locator("#typing")).to_have_text("bob is typing…")
    await bob.press("#text", "Enter")
    await expect(ann.locator("#typing")).to_be_empty()
    await entry(ann, "user:bob").click()
    await entry(bob, "user:ann").click()
    await bob.locator("#text").press_sequentially("psst")
    await expect(ann.locator("#typing")).to_have_text("bob is typing…")


async def test_who_is_online(tab: Open) -> None:
    ann, bob = await both(tab)
    other = await second_tab(bob)
    await expect(entry(ann, "user:bob").get_by_label("online")).to_be_visible()
    await expect(ann.locator("#about")).to_have_text("2 here")
    await bob.close()
    await say(other, "one tab is enough")
    await shows(ann, "one tab is enough")
    await expect(entry(ann, "user:bob").get_by_label("online")).to_be_visible()
    await other.close()
    await expect(entry(ann, "user:bob").get_by_label("offline")).to_be_visible()
    await expect(ann.locator("#about")).to_have_text("1 here")


async def test_unread_counts_are_the_same_in_all_tabs(tab: Open) -> None:
    ann, bob = await both(tab)
    other = await second_tab(bob)
    await entry(ann, "user:bob").click()
    for text in ("one", "two"):
        await say(ann, text)
    for page in (bob, other):
        await expect(unread(page, "user:ann")).to_have_text("2")
        await expect(page).to_have_title("(2) bob · Hubbub chat")
    await entry(other, "user:ann").click()
    await shows(other, "one", "two")
    for page in (bob, other):
        await expect(unread(page, "user:ann")).to_be_hidden()
    await bob.reload()
    await expect(bob.locator("#status")).to_contain_text("Connected")
    await expect(unread(bob, "user:ann")).to_be_hidden()


async def test_what_one_says_is_seen_in_ones_other_tabs(tab: Open) -> None:
    ann, _ = await both(tab)
    other = await second_tab(ann)
    for page in (ann, other):
        await entry(page, "user:bob").click()
    await say(ann, "from the first")
    await shows(other, "from the first")
    await say(other, "from the second")
    await shows(ann, "from the first", "from the second")


async def test_a_new_room(tab: Open) -> None:
    ann, bob = await both(tab)
    for name, problem in (("no spaces", "A room's name has"), ("lobby", "There is a room of this name")):
        await ann.click("#new-room")
        await ann.fill("#answer", name)
        await ann.press("#answer", "Enter")
        await expect(ann.locator("#declined")).to_contain_text(problem)
        await ann.keyboard.press("Escape")
    await ann.click("#new-room")
    await ann.fill("#answer", "plans")
    await ann.click("#confirm")
    await expect(ann.locator("#title")).to_have_text("# plans")
    await say(ann, "before bob")
    await shows(ann, "before bob")
    await bring(ann, "bob")
    await expect(entry(bob, "room:plans")).to_be_visible()
    await say(ann, "the first plan")
    await expect(unread(bob, "room:plans")).to_have_text("1")
    await entry(bob, "room:plans").click()
    await shows(bob, "before bob", "the first plan")
    await bob.reload()
    await expect(entry(bob, "room:plans")).to_be_visible()
    await expect(unread(bob, "room:plans")).to_be_hidden()


async def test_a_stranger_sees_nothing_of_a_room(tab: Open) -> None:
    ann, eve = await joined(tab, "ann"), await joined(tab, "eve")
    await create(ann, "plans")
    await say(ann, "secret")
    await shows(ann, "secret")
    for _ in range(2):
        assert await eve.evaluate(SPY, "room:plans") == [[], "forbidden", "forbidden"]
        assert await eve.evaluate(LOOK, "room:plans") == ["forbidden"] * 3
        await eve.reload()
        await expect(eve.locator("#status")).to_contain_text("Connected")
    await expect(entry(eve, "room:plans")).to_have_count(0)
    await expect(eve.locator("body")).not_to_contain_text("secret")


async def test_who_is_removed_from_a_room_sees_no_more_of_it(tab: Open) -> None:
    ann, bob = await both(tab)
    other = await second_tab(bob)
    await create(ann, "plans")
    await bring(ann, "bob")
    await say(ann, "for bob")
    for page in (bob, other):
        await entry(page, "room:plans").click()
        await shows(page, "for bob")
    await ann.click("#members")
    await ann.get_by_role("button", name="Remove bob").click()
    await expect(ann.locator("#those li")).to_have_count(1)
    await ann.keyboard.press("Escape")
    for page in (bob, other):
        await expect(page.locator("#title")).to_have_text("# lobby")
        await expect(entry(page, "room:plans")).to_have_count(0)
    await expect(ann.locator("#about")).to_have_text("1 here")
    await say(ann, "without bob")
    await shows(ann, "for bob", "without bob")
    assert await bob.evaluate(LOOK, "room:plans") == ["forbidden"] * 3
    await expect(bob.locator("body")).not_to_contain_text("without bob")


async def test_who_is_removed_while_away_has_lost_the_room(tab: Open) -> None:
    ann, bob = await both(tab)
    await create(ann, "plans")
    await bring(ann, "bob")
    await entry(bob, "room:plans").click()
    await expect(bob.locator("#about")).to_have_text("2 here")
    await bob.context.set_offline(True)
    await expect(bob.locator("#offline")).to_be_visible()
    await ann.click("#members")
    await ann.get_by_role("button", name="Remove bob").click()
    await expect(ann.locator("#those li")).to_have_count(1)
    await bob.context.set_offline(False)
    await expect(bob.locator("#title")).to_have_text("# lobby", timeout=COMES_BACK)
    await expect(entry(bob, "room:plans")).to_have_count(0)


async def test_who_is_here_is_seen_among_the_members(tab: Open) -> None:
    ann, bob = await both(tab)
    await ann.click("#members")
    await expect(ann.locator("#those").get_by_label("here", exact=True)).to_have_count(2)
    await ann.keyboard.press("Escape")
    await bob.close()
    await expect(ann.locator("#about")).to_have_text("1 here")
    await ann.click("#members")
    await expect(ann.locator("#those").get_by_label("not here")).to_have_count(1)


# Being told


async def test_a_mention_waits_for_who_is_away(tab: Open) -> None:
    ann, bob = await both(tab)
    await expect(bob.locator("#unseen")).to_have_text("1")  # the welcome
    await bob.click("#sign-out")
    await expect(bob.locator("#door")).to_be_visible()
    await say(ann, "ask @bob, not @nobody or x@bob.example")
    await shows(ann, "ask @bob, not @nobody or x@bob.example")
    await sign(bob, "sign-in", "bob")
    await expect(bob.locator(".toast")).to_contain_text("ann mentioned you in lobby")
    await expect(bob.locator("#unseen")).to_have_text("1")
    await bob.click("#bell")
    await expect(bob.locator("#notes li")).to_have_count(1)
    await expect(bob.locator("#unseen")).to_be_hidden()
    await bob.reload()
    await shows(bob, "ask @bob, not @nobody or x@bob.example")
    await expect(bob.locator("#unseen")).to_be_hidden()


async def test_an_admin_reaches_everybody(tab: Open) -> None:
    ann, bob = await both(tab)
    await expect(ann.locator("#me")).to_have_text("ann (admin)")
    await expect(bob.locator("#announce")).to_be_hidden()
    await ann.click("#announce")
    await ann.fill("#answer", "never mind")
    await ann.click("#cancel")
    await ann.click("#announce")
    await ann.fill("#answer", "Lunch is ready")
    await ann.press("#answer", "Enter")
    for page in (ann, bob):
        await expect(page.locator(".toast", has_text="Lunch is ready")).to_be_visible()
        await expect(page.locator("body")).not_to_contain_text("never mind")
    assert await bob.evaluate(ANNOUNCE) == 403


# Coming and going


async def test_a_message_whose_answer_was_lost_long_ago_is_not_said_again(tab: Open) -> None:
    ann, bob = await both(tab)
    await say(ann, "once")
    await shows(ann, "once")
    assert await ann.evaluate(LONG_AGO) == 0
    await say(ann, "and on")
    for page in (ann, bob):
        await shows(page, "once", "and on")


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_room_outlives_the_server(tab: Open, server: Server, end: str) -> None:
    ann, bob = await both(tab)
    for text in ("one", "two"):
        await say(ann, text)
    await shows(bob, "one", "two")
    await bob.close()
    await (server.stop() if end == "stop" else server.kill())
    await expect(ann.locator("#offline")).to_be_visible()
    await say(ann, "three")
    await server.start()
    await shows(ann, "one", "two", "three")
    bob = await sign(await tab("/"), "sign-in", "bob")
    await shows(bob, "one", "two", "three")


async def test_who_was_away_for_long_sees_the_newest_and_pages_back(tab: Open) -> None:
    ann, bob = await both(tab)
    await say(ann, "before")
    await shows(bob, "before")
    await bob.context.set_offline(True)
    await expect(bob.locator("#offline")).to_be_visible()
    texts = [f"message {number}" for number in range(310)]  # more than a recovery has
    await ann.evaluate(SAY_ALL, texts)
    await bob.context.set_offline(False)
    await shows(bob, *texts[-50:])
    await bob.click("#earlier")
    await shows(bob, *texts[-100:])


async def test_a_reload_keeps_who_one_is_and_what_was_said(tab: Open) -> None:
    ann, bob = await both(tab)
    await say(ann, "before")
    await shows(bob, "before")
    await bob.reload()
    await expect(bob.locator("#me")).to_have_text("bob")
    await shows(bob, "before")
    await say(bob, "after")
    await shows(ann, "before", "after")


async def test_history_comes_in_pages(tab: Open) -> None:
    ann = await joined(tab, "ann")
    texts = [f"message {number}" for number in range(120)]
    await ann.evaluate(WRITE, texts)
    await shows(ann, *texts)
    await expect(ann.locator("#earlier")).to_be_hidden()
    await ann.reload()
    await shows(ann, *texts[-50:])
    for count in (100, 120):
        await ann.click("#earlier")
        await shows(ann, *texts[-count:])
    await expect(ann.locator("#earlier")).to_be_hidden()


async def test_an_offline_spell(tab: Open) -> None:
    ann, bob = await both(tab)
    await say(ann, "before")
    await shows(bob, "before")
    await bob.context.set_offline(True)
    await expect(bob.locator("#offline")).to_be_visible()
    await expect(bob.locator("#status")).to_contain_text("Offline")
    await say(bob, "written in the tunnel")
    await expect(bob.locator("#messages .waits .note")).to_have_text("waiting to be sent")
    await entry(bob, "user:ann").click()
    await say(bob, "and this for you")
    await entry(bob, "room:lobby").click()
    await say(ann, "meanwhile")
    await entry(ann, "user:bob").click()
    await say(ann, "are you there?")
    await expect(ann.locator("#messages .note")).not_to_have_text("waiting to be sent")
    await bob.context.set_offline(False)
    await expect(bob.locator("#offline")).to_be_hidden(timeout=COMES_BACK)
    await shows(bob, "before", "meanwhile", "written in the tunnel")
    await shows(ann, "are you there?", "and this for you")
    await expect(unread(bob, "user:ann")).to_have_text("1")
    await entry(bob, "user:ann").click()
    await shows(bob, "are you there?", "and this for you")


async def test_a_lost_answer_doubles_nothing(tab: Open) -> None:
    ann, bob = await both(tab)
    await ann.evaluate(LOSE_THE_ANSWER)
    await say(ann, "only once")
    await shows(ann, "only once")
    await say(bob, "seen")
    for page in (ann, bob):
        await shows(page, "only once", "seen")


async def test_what_was_written_outlives_the_tab(tab: Open, server: Server) -> None:
    ann, bob = await both(tab)
    await server.stop()
    await expect(ann.locator("#offline")).to_be_visible()
    await say(ann, "kept in the browser")
    await expect(ann.locator("#messages .waits")).to_have_count(1)
    context = ann.context
    await ann.close()
    await server.start()
    await shows(bob)
    again = await context.new_page()
    await again.goto(server.url)
    for page in (again, bob):
        await shows(page, "kept in the browser")


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_restart_loses_nothing(tab: Open, server: Server, end: str) -> None:
    ann, bob = await both(tab)
    await bob.close()
    await entry(ann, "user:bob").click()
    for text in ("first", "second"):
        await say(ann, text)
    await expect(ann.locator("#messages .note")).to_have_text(["kept for the next sign-in"] * 2)
    await (server.stop() if end == "stop" else server.kill())
    await expect(ann.locator("#status")).to_contain_text("trying again")
    await say(ann, "third")
    await server.start()
    await shows(ann, "first", "second", "third")
    bob = await sign(await tab("/"), "sign-in", "bob")
    await expect(unread(bob, "user:ann")).to_have_text("3")
    for text in ("first", "second", "third"):
        await expect(bob.locator(".toast", has_text=text)).to_have_count(1)  # each by the inbox, once
    await entry(bob, "user:ann").click()
    await shows(bob, "first", "second", "third")
    await bob.reload()
    await expect(unread(bob, "user:ann")).to_be_hidden()
    await expect(bob.locator(".toast")).to_have_count(0)


async def test_signing_out_ends_every_session(tab: Open, server: Server) -> None:
    ann = await joined(tab, "ann")
    other = await second_tab(ann)
    elsewhere = await sign(await tab("/"), "sign-in", "ann")
    await expect(elsewhere.locator("#status")).to_contain_text("Connected")
    [session] = await ann.context.cookies()
    await ann.click("#sign-out")
    for page in (other, elsewhere):
        await expect(page.locator("#refused")).to_have_text("You were signed out.")
        await expect(page.locator("#status")).to_have_text("Not connected")
    await ann.context.add_cookies([{"name": session["name"], "value": session["value"], "url": server.url}])
    await ann.reload()  # with the old cookie
    await expect(ann.locator("#door")).to_be_visible()
    await sign(ann, "sign-in", "ann")
    await expect(ann.locator("#status")).to_contain_text("Connected")
