"""The demo page, served by the command that its docstring names, in a real Chromium."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.commands import serving

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 10

try:
    from playwright.sync_api import Browser, Page, expect, sync_playwright
except ImportError:
    missing = "playwright isn't installed"
else:
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    missing = "" if chromium else f"none of {', '.join(BROWSERS)} is installed"
    expect.set_options(timeout=SECONDS * 1000)

pytestmark = [
    pytest.mark.browser,
    # In CI a missing browser is a failure, that of the fixtures below.
    pytest.mark.skipif(bool(missing) and os.environ.get("CI") != "true", reason=missing),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving("uvicorn", "examples.demo:wamp", "--port", "0") as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if missing:
        pytest.fail(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


OpenTab = Callable[[str], "Page"]


@pytest.fixture
def open_tab(browser: Browser, url: str) -> Iterator[OpenTab]:
    """Opens the page and joins by a name; in the end, checks what no tab may ever do."""
    context = browser.new_context()
    context.set_default_timeout(SECONDS * 1000)
    complaints: list[str] = []
    requested: list[str] = []

    def watch(page: Page) -> None:
        def on_console(message: Any) -> None:
            if message.type in ("error", "warning"):
                complaints.append(message.text)

        page.on("console", on_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        page.on("websocket", lambda socket: requested.append(socket.url))

    context.on("page", watch)

    def open_tab(name: str) -> Page:
        page = context.new_page()
        page.goto(url)
        join(page, name)
        return page

    yield open_tab
    context.close()
    assert complaints == []
    here = (url, url.replace("http", "ws") + "ws", "data:")
    assert requested
    assert [address for address in requested if not address.startswith(here)] == []


def join(page: Page, name: str) -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Join").click()
    expect(page.locator("#status")).to_have_text(re.compile(r"session \d+"))


def log_in(page: Page, method: str, user: str = "ada", password: str = "engine") -> None:
    page.get_by_label("User").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name=f"With {method}").click()


def activity(page: Page) -> Any:
    return page.get_by_label("Activity")


def wire(page: Page, message: str) -> Any:
    """The lines of the wire view that show messages of one type."""
    return page.locator("#wire li", has=page.get_by_text(message, exact=True))


# ---- joining


def test_who_joins_is_greeted_and_seen(open_tab: OpenTab) -> None:
    page = open_tab("Ada")
    expect(page.get_by_role("heading", name="Hello Ada")).to_be_visible()
    expect(page.locator("#visitors")).to_contain_text("Ada")
    expect(page.locator("#visitors")).to_contain_text("you")
    expect(activity(page).get_by_role("listitem").first).to_have_text("Ada joined")
    expect(wire(page, "HELLO")).to_have_count(1)
    expect(wire(page, "WELCOME")).to_have_count(1)


def test_who_leaves_can_join_again(open_tab: OpenTab) -> None:
    page = open_tab("Ada")
    page.get_by_role("button", name="Leave").click()
    expect(page.locator("#status")).to_have_text("not connected")
    expect(page.get_by_role("alert")).to_have_count(0)
    join(page, "Grace")
    expect(page.get_by_role("heading", name="Hello Grace")).to_be_visible()


# ---- calls


def test_numbers_are_added_exactly(open_tab: OpenTab) -> None:
    page = open_tab("Ada")
    page.get_by_label("First number").fill("0.1")
    page.get_by_label("Second number").fill("0.2")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("= 0.3", exact=True)).to_be_visible()
    expect(activity(page).get_by_role("listitem").first).to_have_text("Ada 0.1 + 0.2 = 0.3")


def test_a_word_is_no_number(open_tab: OpenTab) -> None:
    page = open_tab("Ada")
    page.get_by_label("Second number").fill("two")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#total")).to_contain_text("wamp.error.invalid_argument")
    expect(page.locator("#total")).to_contain_text("args[1]")


def test_a_countdown_moves_the_bar_to_the_end(open_tab: OpenTab) -> None:
    page = open_tab("Ada")
    page.get_by_label("Seconds").fill("1")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Lift-off!", exact=True)).to_be_visible()
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")
    expect(page.get_by_role("button", name="Cancel")).to_be_disabled()
    reports = wire(page, "RESULT").filter(has_text='"progress":true')
    expect(reports.last).to_contain_text('{"left":0.25}')
    expect(activity(page)).to_contain_text("Ada counted down to lift-off")


def test_a_countdown_can_be_cancelled(open_tab: OpenTab) -> None:
    page = open_tab("Ada")
    page.get_by_label("Seconds").fill("60")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("progressbar")).not_to_have_attribute("aria-valuenow", "0")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled.", exact=True)).to_be_visible()
    expect(wire(page, "ERROR")).to_contain_text("wamp.error.canceled")
    expect(activity(page).get_by_role("listitem").first).to_have_text("Ada cancelled a countdown")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()


# ---- events


def test_the_chart_moves(open_tab: OpenTab) -> None:
    page = open_tab("Ada")
    line = page.locator("#plot .line")
    expect(line).to_have_attribute("d", re.compile("M.*L"))
    before = line.get_attribute("d")
    assert before is not None
    expect(line).not_to_have_attribute("d", before)
    expect(page.locator("#celsius")).to_have_text(re.compile(r"-?\d+\.\d"))


def test_two_tabs_see_each_other(open_tab: OpenTab) -> None:
    ada, grace = open_tab("Ada"), open_tab("Grace")
    for page in (ada, grace):
        expect(page.locator("#visitors li")).to_have_count(2)
        expect(activity(page)).to_contain_text("Grace joined")

    grace.get_by_label("First number").fill("20")
    grace.get_by_label("Second number").fill("22")
    grace.get_by_role("button", name="Add").click()
    expect(activity(ada)).to_contain_text("Grace 20 + 22 = 42")

    ada.get_by_label("Seconds").fill("60")
    ada.get_by_role("button", name="Start").click()
    counting = grace.locator("#visitors li", has_text="Ada")
    expect(counting).to_contain_text(re.compile(r"\d+ %"))
    ada.get_by_role("button", name="Cancel").click()
    expect(counting).not_to_contain_text("%")

    grace.close()
    expect(ada.locator("#visitors li")).to_have_count(1)
    expect(activity(ada)).to_contain_text("Grace left")


def test_a_second_tab_is_a_button_away(open_tab: OpenTab) -> None:
    page = open_tab("Ada")
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="Open a second tab").click()
    join(opened.value, "Grace")
    expect(page.locator("#visitors")).to_contain_text("Grace")


# ---- logging in


@pytest.mark.parametrize(("method", "authmethod"), [("a ticket", "ticket"), ("CRA", "wampcra")])
def test_logging_in_and_out(open_tab: OpenTab, method: str, authmethod: str) -> None:
    page = open_tab("Ada")
    log_in(page, method)
    member = page.locator("#member")
    expect(member).to_contain_text("Welcome back, Ada Lovelace!")
    expect(member).to_contain_text(f"authmethod{authmethod}")
    expect(activity(page)).to_contain_text(f"Ada Lovelace logged in by {authmethod}")
    page.get_by_role("button", name="Log out").click()
    expect(member).to_be_hidden()
    expect(page.get_by_label("User")).to_be_visible()


def test_only_a_ticket_is_seen_on_the_wire(open_tab: OpenTab) -> None:
    page = open_tab("Ada")
    log_in(page, "CRA", "grace", "compiler")
    expect(page.locator("#member")).to_contain_text("Welcome back, Grace Hopper!")
    expect(wire(page, "AUTHENTICATE")).not_to_contain_text("compiler")
    page.get_by_role("button", name="Log out").click()
    log_in(page, "a ticket", "grace", "compiler")
    expect(wire(page, "AUTHENTICATE").last).to_contain_text("compiler")


@pytest.mark.parametrize("method", ["a ticket", "CRA"])
@pytest.mark.parametrize(("user", "password"), [("ada", "wrong"), ("nobody", "engine")])
def test_a_wrong_login_is_refused(open_tab: OpenTab, method: str, user: str, password: str) -> None:
    page = open_tab("Ada")
    log_in(page, method, user, password)
    expect(page.get_by_role("alert")).to_contain_text("wamp.error.authentication_failed")
    expect(page.locator("#member")).to_be_hidden()
    expect(wire(page, "ABORT")).to_have_count(1)
    log_in(page, method)  # and the right one is taken afterwards
    expect(page.locator("#member")).to_contain_text("Welcome back, Ada Lovelace!")
    expect(page.get_by_role("alert")).to_have_count(0)


# ---- the end


def test_who_was_cut_off_comes_back_by_itself(browser: Browser) -> None:
    context = browser.new_context()
    with serving("uvicorn", "examples.demo:wamp", "--port", "0") as port:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        join(page, "Ada")
    expect(page.get_by_role("alert")).to_contain_text("The session ended")
    expect(page.locator("#status")).to_have_text("not connected, but trying to be")
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_role("alert")).to_contain_text("The server can't be reached.")
    with serving("uvicorn", "examples.demo:wamp", "--port", str(port)):
        expect(page.get_by_role("heading", name="Hello Ada")).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(page.locator("#visitors li")).to_have_count(1)
        page.get_by_role("button", name="Leave").click()
        expect(page.locator("#status")).to_have_text("not connected")
    context.close()
