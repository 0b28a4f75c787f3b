"""Tabs of a browser whose pages have to work without complaints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CONNECTION_REFUSED = "net::ERR_CONNECTION_REFUSED"
"""What a browser says in the console of a page when there is no server."""


@contextmanager
def watched_context(
    browser: Browser, *, server_may_be_gone: bool = False
) -> Iterator[BrowserContext]:
    """Open a context for tabs; in the end, check that no page failed or used its console."""
    context = browser.new_context()
    complaints: list[str] = []

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text))

    context.on("page", watch)
    yield context
    context.close()
    if server_may_be_gone:
        complaints = [text for text in complaints if CONNECTION_REFUSED not in text]
    assert complaints == []
