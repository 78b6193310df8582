"""The test page in a real browser: connect, send, see what comes, count it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from hubbub.errors import CLOSE_CODES
from tests.browser.conftest import Open
from tests.serving import REPOSITORY, free_port, process

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVE = ("-m", "hubbub.cli", "serve", "tests.browser.anybody:app", "--port")
SCRIPT = (REPOSITORY / "src" / "hubbub" / "servers" / "console" / "client.js").read_text("utf-8")
QUICK = ["ping", "echo", "authenticate", "subscribe", "publish", "chat"]


async def connect(page: Page) -> Page:
    await page.click("#connect")
    await expect(page.locator("#status")).to_have_text("Connected")
    return page


async def send(page: Page, type: str, payload: str = "") -> None:
    await page.fill("#type", type)
    await page.fill("#payload", payload)
    await page.click("#send")


def shown(page: Page, direction: str) -> Locator:
    """The titles in the log of one direction: in, out or note."""
    return page.locator(f"#log li.{direction}:not([hidden]) .head > :nth-child(3)")


async def counts(page: Page, **expected: int) -> None:
    for name, count in expected.items():
        await expect(page.locator(f"#{name}")).to_have_text(str(count))


async def test_connect_send_and_leave(tab: Open, site: str) -> None:
    page = await tab("/ws/client")
    await expect(page.locator("#url")).to_have_value(site.replace("http", "ws") + "/ws")
    await expect(page.locator("#send")).to_be_disabled()
    await connect(page)
    await send(page, "echo", '{"text": "grüße"}')
    await expect(shown(page, "in")).to_have_text(["welcome", "echo_response"])
    await expect(page.locator("#log li.in").last).to_contain_text('"text": "grüße"')
    await counts(page, sent=1, received=2, errors=0, reconnects=0)
    await expect(page.locator("#latency")).to_have_text(re.compile(r"^\d+(\.\d)? ms$"))
    await page.click("#disconnect")
    await expect(page.locator("#status")).to_have_text("Not connected")
    await expect(shown(page, "note").last).to_contain_text("closed 1000: the work is done")
    await connect(page)


async def test_one_click_for_every_type(tab: Open) -> None:
    page = await connect(await tab("/ws/client"))
    for name in QUICK:
        await page.get_by_role("button", name=name, exact=True).click()
    await expect(shown(page, "out")).to_have_text(QUICK)
    replies = ["pong", "echo_response", "authenticated", "subscribed", "published", "chat_received"]
    for reply in [*replies, "message", "chat"]:
        await expect(shown(page, "in").get_by_text(reply, exact=True)).to_have_count(1)
    await counts(page, sent=6, errors=0)


async def test_an_error_is_counted_and_marked(tab: Open) -> None:
    page = await connect(await tab("/ws/client"))
    await send(page, "nobody")
    await expect(page.locator("#log li.error")).to_contain_text("unknown_type")
    await counts(page, sent=1, received=2, errors=1)


async def test_a_payload_that_is_no_json_is_not_sent(tab: Open) -> None:
    page = await connect(await tab("/ws/client"))
    await send(page, "echo", "{")
    await expect(page.locator("#problem")).to_contain_text("The payload is not JSON.")
    await counts(page, sent=0)
    await send(page, "echo", "1")
    await expect(page.locator("#problem")).to_be_empty()
    await counts(page, sent=1)


async def test_raw_text_is_sent_as_it_is(tab: Open) -> None:
    page = await connect(await tab("/ws/client"))
    await page.get_by_label("Raw text").check()
    await page.fill("#raw", "{nonsense")
    await page.press("#raw", "Control+Enter")
    await expect(page.locator("#log li.out pre")).to_have_text("{nonsense")
    await expect(page.locator("#log li.error")).to_contain_text("bad_json")


async def test_the_log_is_filtered_and_cleared(tab: Open) -> None:
    page = await connect(await tab("/ws/client"))
    await send(page, "echo", '"needle"')
    await send(page, "echo", '"hay"')
    await counts(page, received=3)
    await page.fill("#filter", "NEEDLE")
    await expect(page.locator("#log li:visible")).to_have_count(2)
    await page.select_option("#direction", "in")
    await expect(page.locator("#log li:visible")).to_have_count(1)
    await page.fill("#filter", "")
    await expect(shown(page, "in")).to_have_text(["welcome", "echo_response", "echo_response"])
    await page.click("#clear")
    await expect(page.locator("#log li")).to_have_count(0)
    await expect(page.locator("#empty")).to_be_visible()


async def test_nothing_a_server_says_is_html(tab: Open) -> None:
    page = await connect(await tab("/ws/client"))
    await send(page, "echo", json.dumps("<img src=x onerror=alert(1)>"))
    await expect(page.locator("#log li.in").last).to_contain_text("<img src=x")
    await expect(page.locator("img")).to_have_count(0)


async def test_some_codes_say_not_to_come_back(tab: Open) -> None:
    page = await connect(await tab("/ws/client"))
    await send(page, "echo", json.dumps("x" * 70_000))
    await expect(page.locator("#status")).to_have_text("Closed, 1009")
    await expect(shown(page, "note").last).to_contain_text("closed 1009: a message over the size or part limit")
    await expect(page.locator("#connect")).to_be_enabled()
    await counts(page, reconnects=0)


async def test_it_comes_back_after_a_restart(tab: Open, tmp_path: Path) -> None:
    port = str(free_port())
    async with process(*SERVE, port, HUBBUB_DATA_DIR=str(tmp_path)) as server:
        await server.says("WebSocket")
        page = await connect(await tab(f"http://127.0.0.1:{port}/ws/client"))
        server.child.terminate()
        assert await server.end() == 0
        await expect(page.locator("#status")).to_contain_text("Trying again in")
    async with process(*SERVE, port, HUBBUB_DATA_DIR=str(tmp_path)) as server:
        await server.says("WebSocket")
        await expect(page.locator("#status")).to_have_text("Connected", timeout=20_000)
        await counts(page, reconnects=1)
        await send(page, "ping")
        await expect(shown(page, "in").last).to_have_text("pong")


@pytest.mark.parametrize("address", ["http://[", "ftp://127.0.0.1", "ws://127.0.0.1:{port}/ws"])
async def test_an_address_that_leads_nowhere(tab: Open, address: str) -> None:
    page = await tab("/ws/client")
    await page.get_by_label("Reconnect").uncheck()
    await page.fill("#url", address.format(port=free_port()))
    await page.click("#connect")
    await expect(page.locator("#status")).to_have_attribute("data-state", "failed")
    await expect(page.locator("#log li.note")).to_have_count(1)
    await expect(page.locator("#connect")).to_be_enabled()


async def test_it_can_be_told_to_stop_trying(tab: Open) -> None:
    page = await tab("/ws/client")
    await page.fill("#url", f"ws://127.0.0.1:{free_port()}/ws")
    await page.click("#connect")
    await expect(page.locator("#status")).to_contain_text("Trying again in")
    await page.click("#disconnect")
    await expect(page.locator("#status")).to_have_text("Not connected")
    await expect(page.locator("#disconnect")).to_be_disabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_the_page_fits_its_window(tab: Open, width: int, scheme: str) -> None:
    page = await connect(await tab("/ws/client", viewport={"width": width, "height": 700}, color_scheme=scheme))
    await send(page, "echo", json.dumps("x" * 2000))
    await counts(page, received=2)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_the_page_knows_every_close_code() -> None:
    found = re.search(r"const CLOSE_CODES = (\{.*?\n\});", SCRIPT, re.DOTALL)
    assert found is not None
    table = {str(code.value): [row.meaning, row.reconnect] for code, row in CLOSE_CODES.items()}
    assert json.loads(found[1]) == table
