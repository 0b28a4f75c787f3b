"""How the pages fit into windows; the demo's command serves all four."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.test_demo import Browser, Page, browser, expect, pytestmark, url

__all__ = ["browser", "pytestmark", "url"]

NARROW, DESKTOP = (320, 700), (1280, 900)
WIDEST_NAME = "W" * 20
SIDEWAYS = """() => {
  const {scrollWidth, clientWidth} = document.documentElement;
  return scrollWidth - clientWidth;
}"""
COVERED = """(element) => {
  const {left, top, width, height} = element.getBoundingClientRect();
  return !element.contains(document.elementFromPoint(left + width / 2, top + height / 2));
}"""


@pytest.fixture(params=[NARROW, (768, 900), DESKTOP], ids=lambda size: f"{size[0]}px")
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(10_000)
    yield page
    page.close()


def expect_fit(page: Page) -> None:
    for details in page.locator("details").all():
        if details.is_visible():
            details.evaluate("(element) => element.open = true")
    assert page.evaluate(SIDEWAYS) == 0


def join(page: Page, label: str, button: str) -> None:
    expect_fit(page)
    page.get_by_label(label).fill(WIDEST_NAME)
    page.get_by_role("button", name=button).click()
    expect(page.locator("#status.open")).to_be_visible()


# ---- one server for all


def test_the_demo_links_to_the_other_pages(page: Page, url: str) -> None:
    for link, heading in (
        ("Chat", "A chat that remembers"),
        ("Fleet", "A fleet of devices"),
        ("Uploads", "Files, streamed into calls"),
    ):
        page.goto(url)
        page.get_by_role("link", name=link).click()
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
        page.get_by_role("link", name="serverwamp").click()
        expect(page).to_have_url(url)


@pytest.mark.parametrize("path", ["chat", "fleet", "upload"])
@pytest.mark.parametrize("page", [DESKTOP], indirect=True, ids=["desktop"])
def test_a_page_explains_itself_in_one_line(page: Page, url: str, path: str) -> None:
    page.goto(f"{url}{path}/")
    lead = page.locator("h1 + .lead")
    height = "(element) => element.clientHeight / parseFloat(getComputedStyle(element).lineHeight)"
    assert round(lead.evaluate(height), 1) == 1
    assert lead.inner_text().endswith(".")


# ---- nothing scrolls sideways


def test_the_demo_fits(page: Page, url: str) -> None:
    page.goto(url)
    join(page, "Your name", "Join")
    page.get_by_label("First number").fill("W" * 200)
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#total")).to_contain_text("wamp.error.invalid_argument")
    page.get_by_label("Seconds").fill("60")
    page.get_by_role("button", name="Start").click()
    page.get_by_label("User").fill("nobody")
    page.get_by_role("button", name="With CRA").click()
    expect(page.get_by_role("alert")).to_contain_text("wamp.error.authentication_failed")
    page.get_by_role("button", name="Hide events").click()
    page.locator("#wire li", has_text="W" * 200).first.click()
    expect(page.locator("#wire .whole")).to_be_visible()
    expect_fit(page)
    page.get_by_label("User").fill("ada")
    page.get_by_role("button", name="With CRA").click()
    expect(page.locator("#member")).to_be_visible()
    expect_fit(page)


def test_the_chat_fits(page: Page, url: str) -> None:
    page.goto(f"{url}chat/")
    join(page, "Your name", "Join")
    page.get_by_label("Message", exact=True).fill("W" * 500)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("log")).to_contain_text(WIDEST_NAME)
    expect_fit(page)


def test_the_fleet_fits(page: Page, url: str) -> None:
    page.goto(f"{url}fleet/")
    expect(page.get_by_text("None yet")).to_be_visible()  # the tab before this one has left
    expect(page.locator("#status.open")).to_be_visible()
    join(page, "Name of this device", "Be a device")
    device = page.locator("#devices li", has_text=WIDEST_NAME)
    device.get_by_role("button", name="Measure").click()
    expect(device.locator("output")).to_contain_text("°C")
    device.get_by_role("button", name="Blink").click()
    page.get_by_role("button", name="Measure all").click()
    expect(page.get_by_label("Readings")).to_contain_text("°C")
    expect_fit(page)


def test_uploads_fit(page: Page, url: str) -> None:
    page.goto(f"{url}upload/")
    expect(page.locator("#status.open")).to_be_visible()
    files = [("W" * 100, b"some bytes"), ("W" * 201, b"refused: its name is too long")]
    for name, content in files:
        file = {"name": name, "mimeType": "text/plain", "buffer": content}
        page.get_by_label("Files", exact=True).set_input_files(file)  # type: ignore[arg-type]
    expect(page.get_by_label("Uploads")).to_contain_text("complete")
    expect(page.locator("#uploads .failed")).to_be_visible()
    expect(page.get_by_label("Stored files")).to_contain_text("W" * 100)
    expect_fit(page)


# ---- the wire


@pytest.mark.parametrize("page", [DESKTOP], indirect=True, ids=["desktop"])
def test_the_wire_is_in_sight(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_role("button", name="Join").click()
    wire = page.locator("section.wire")
    expect(wire.locator("li").first).to_be_visible()
    assert page.evaluate("scrollY") == 0
    expect(wire).to_be_in_viewport(ratio=1)
    for name in ("Add", "Start", "With a ticket", "With CRA"):
        button = page.get_by_role("button", name=name)
        expect(button).to_be_in_viewport(ratio=1)
        assert not button.evaluate(COVERED), f"something lies over {name!r}"
    # What lies below it can be reached.
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(wire).to_be_in_viewport(ratio=1)
    for summary in page.locator(".card summary").all()[2:]:
        assert not summary.evaluate(COVERED)
