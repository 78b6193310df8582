"""What people do on the page of the reference app, and what they see."""

from __future__ import annotations

from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import PATIENCE, Open

__all__ = ["COMES_BACK", "PASSWORD", "both", "bring", "create", "entry", "joined", "say", "second_tab", "shows"]
__all__ += ["sign", "unread"]

PASSWORD = "correct horse"
COMES_BACK = 4 * PATIENCE  # the pause between two attempts grows while the server is away


async def sign(page: Page, way: str, name: str, password: str = PASSWORD) -> Page:
    await page.fill("#name", name)
    await page.fill("#password", password)
    await page.click(f"#{way}")
    return page


async def joined(tab: Open, name: str) -> Page:
    """A tab of somebody who has just signed up."""
    page = await sign(await tab("/"), "sign-up", name)
    await expect(page.locator("#status")).to_contain_text("Connected")
    return page


async def both(tab: Open) -> tuple[Page, Page]:
    """Ann, who is the admin, and Bob."""
    return await joined(tab, "ann"), await joined(tab, "bob")


async def second_tab(page: Page) -> Page:
    """Another tab of the same window, so of the same person."""
    other = await page.context.new_page()
    await other.goto(page.url)
    await expect(other.locator("#status")).to_contain_text("Connected")
    return other


async def say(page: Page, text: str) -> None:
    await page.fill("#text", text)
    await page.press("#text", "Enter")


async def create(page: Page, room: str) -> None:
    """Make a room, and look at it."""
    await page.click("#new-room")
    await page.fill("#answer", room)
    await page.click("#confirm")
    await expect(page.locator("#title")).to_have_text(f"# {room}")


async def bring(page: Page, name: str) -> None:
    """Add somebody to the room in view."""
    await page.click("#members")
    await expect(page.locator("#those li").first).to_be_visible()
    await page.fill("#guest", name)
    await page.press("#guest", "Enter")
    await expect(page.locator("#those li", has_text=name)).to_be_visible()
    await page.keyboard.press("Escape")


def entry(page: Page, conversation: str) -> Locator:
    """A line of the list: room:lobby, user:bob."""
    return page.locator(f"nav button[data-conversation='{conversation}']")


def unread(page: Page, conversation: str) -> Locator:
    return entry(page, conversation).locator(".unread")


async def shows(page: Page, *texts: str) -> None:
    """The messages of the conversation in view are these, and all of them are sent."""
    await expect(page.locator("#messages .body")).to_have_text(list(texts), timeout=COMES_BACK)
    await expect(page.locator("#messages .waits")).to_have_count(0, timeout=COMES_BACK)
