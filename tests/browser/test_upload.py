"""The page of examples/upload.py, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.browser.tabs import watched_context
from tests.browser.test_demo import Browser, Page, browser, expect, pytestmark
from tests.commands import serving

__all__ = ["browser", "pytestmark"]

CONTENT = Random(1).randbytes(3_000_000)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving("uvicorn", "examples.upload:wamp", "--port", "0") as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page, joined; in the end, checks that nothing has failed in it."""
    with watched_context(browser) as context:
        yield opened(context.new_page(), url)


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    expect(page.get_by_label("Files", exact=True)).to_be_enabled()
    return page


def upload(page: Page, *files: tuple[str, bytes]) -> None:
    page.get_by_label("Files", exact=True).set_input_files(
        [{"name": name, "mimeType": "text/plain", "buffer": data} for name, data in files]
    )


def stored(page: Page, name: str) -> Any:
    return page.get_by_label("Stored files").get_by_role("listitem").filter(has_text=name)


def test_files_are_uploaded_and_everybody_sees_them(page: Page, url: str, tmp_path: Path) -> None:
    other = opened(page.context.new_page(), url)
    upload(page, ("long.bin", CONTENT), ("<b>short</b>.txt", b"short"), ("empty", b""))
    for name in ("long.bin", "<b>short</b>.txt", "empty"):
        bar = page.get_by_role("progressbar", name=name)
        expect(bar).to_have_attribute("aria-valuenow", "100")
    expect(page.get_by_label("Uploads")).to_contain_text("3.0 MB, complete")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    for tab in (page, other):
        expect(stored(tab, "long.bin")).to_contain_text(sha256(CONTENT).hexdigest())
        expect(stored(tab, "<b>short</b>.txt")).to_contain_text("1 kB")
        expect(stored(tab, "empty")).to_contain_text("0 kB")
    with other.expect_download() as download:
        other.get_by_role("link", name="long.bin").click()
    download.value.save_as(tmp_path / "long.bin")
    assert (tmp_path / "long.bin").read_bytes() == CONTENT


def test_an_upload_can_be_cancelled(page: Page, tmp_path: Path) -> None:
    with (tmp_path / "endless.bin").open("wb") as file:
        file.truncate(250_000_000)
    page.get_by_label("Files", exact=True).set_input_files(tmp_path / "endless.bin")
    bar = page.get_by_role("progressbar", name="endless.bin")
    expect(bar).not_to_have_attribute("aria-valuenow", "0")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_label("Uploads")).to_contain_text("cancelled")
    expect(bar).not_to_have_attribute("aria-valuenow", "100")
    upload(page, ("after.txt", b"and the next one works"))
    expect(stored(page, "after.txt")).to_be_visible()
    expect(stored(page, "endless.bin")).to_have_count(0)


def test_what_is_refused_says_why(page: Page) -> None:
    upload(page, ("x" * 201, b"a name that is too long"))
    expect(page.get_by_label("Uploads")).to_contain_text("Expected `str` of length <= 200")


def test_the_page_comes_back_after_a_restart(browser: Browser) -> None:
    context = browser.new_context()
    with serving("uvicorn", "examples.upload:wamp", "--port", "0") as port:
        page = opened(context.new_page(), f"http://127.0.0.1:{port}/")
    expect(page.locator("#status")).to_have_text("not connected, but trying to be")
    expect(page.get_by_role("alert")).to_contain_text("can't be reached")
    expect(page.get_by_label("Files", exact=True)).to_be_disabled()
    with serving("uvicorn", "examples.upload:wamp", "--port", str(port)):
        expect(page.get_by_label("Files", exact=True)).to_be_enabled()
        expect(page.get_by_role("alert")).to_be_hidden()
        upload(page, ("after.txt", b"and it works"))
        expect(stored(page, "after.txt")).to_be_visible()
    context.close()
