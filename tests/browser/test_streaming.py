"""The streaming example in a real browser: three tabs see one answer grow, late or reloaded, and each can stop it."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from examples.streaming import WORDS
from tests.browser.conftest import Open

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVE = ("-m", "hubbub.cli", "serve", "examples.streaming:app", "--port")


def said(words: int) -> str:
    return "".join(f"{WORDS[number % len(WORDS)]} " for number in range(words))


async def ask(page: Page) -> None:
    await page.click("text=Ask")
    await growing(page)


async def growing(page: Page) -> None:
    await expect(page.locator("#state")).to_have_text("answering")
    await expect(page.locator("#answer")).to_contain_text("The sea")


async def text(page: Page) -> str:
    return await page.evaluate("document.getElementById('answer').textContent") or ""


async def test_three_tabs_see_one_answer(tab: Open) -> None:
    first, second = [await tab("/?words=60#42") for _ in range(2)]
    await ask(first)
    await growing(second)
    late = await tab("/#42")
    await growing(late)
    await second.reload()
    await growing(second)
    for page in (first, second, late):
        await expect(page.locator("#state")).to_have_text("done")
        assert await text(page) == said(60)
        assert await page.evaluate("document.getElementById('progress').value") == 60
    await late.reload()
    await expect(late.locator("#state")).to_have_text("done")
    assert await text(late) == said(60)


async def test_any_tab_stops_it(tab: Open) -> None:
    pages = [await tab("/?words=100000#43") for _ in range(3)]
    await ask(pages[0])
    await growing(pages[2])
    await pages[2].click("#stop")
    for page in pages:
        await expect(page.locator("#state")).to_have_text("cancelled")
    texts = {await text(page) for page in pages}
    assert len(texts) == 1
    assert re.match("The sea", texts.pop())
    await pages[1].click("text=Ask")
    await growing(pages[0])
    await pages[0].click("#stop")
    await expect(pages[1].locator("#state")).to_have_text("cancelled")


async def test_who_lost_the_connection_misses_nothing(tab: Open) -> None:
    page = await tab("/?words=60#44")
    await ask(page)
    await page.evaluate("socket.close()")
    await expect(page.locator("#state")).to_have_text("done")
    assert await text(page) == said(60)
