"""A real Chromium, the reference app as `hubbub serve` runs it, and tabs that must not log an error."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from tests.serving import DEADLINE, process

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
SERVE = ("-m", "hubbub.cli", "serve", "examples.chat.app:app", "--port")

Open = Callable[..., Awaitable[Page]]

EXPECTED = re.compile("ERR_CONNECTION_REFUSED|ERR_INTERNET_DISCONNECTED|server responded with a status of 4")

PATIENCE = 2 * DEADLINE * 1000  # milliseconds; a browser on a busy machine

expect.set_options(timeout=PATIENCE)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium without a window."""
    path = os.environ.get("HUBBUB_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: install it, or set HUBBUB_CHROMIUM to the program"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The HTTP address of the reference app, or of what the module's own `SERVE` serves."""
    command = getattr(request.module, "SERVE", SERVE)
    async with process(*command, "0", HUBBUB_DATA_DIR=str(tmp_path_factory.mktemp("data"))) as server:
        address = re.search(r"HTTP +(\S+)", await server.says("WebSocket"))
        assert address is not None
        yield address[1]


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser, site: str) -> AsyncIterator[Open]:
    """Open a tab: `await tab("/path", **options of the window)`. All share one window, and log no error."""
    contexts, errors = [], list[str]()

    def note(message: ConsoleMessage) -> None:
        icon = message.location.get("url", "").endswith("/favicon.ico")  # the app's own, and it has none
        if message.type == "error" and not icon:
            errors.append(message.text)

    async def open(path: str, **options: Any) -> Page:
        context = await browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = await context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(path if "://" in path else site + path)
        return page

    yield open
    for context in contexts:
        await context.close()
    # What the browser itself says of a server that is gone, or that says no, is no fault of the page.
    assert [error for error in errors if not EXPECTED.search(error)] == []
