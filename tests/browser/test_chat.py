"""The page of examples/chat.py, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.browser.tabs import watched_context
from tests.browser.test_demo import Browser, Page, browser, expect, pytestmark
from tests.commands import serving

__all__ = ["browser", "pytestmark"]

OpenTab = Callable[..., "Page"]

CHATTER = """() => {
  window.chatter = (async () => {
    const {join} = await import("/wamp.js");
    const session = await join("realm1", {details: {authextra: {name: "Ada"}}});
    let number = 0;
    while (!window.enough) {
      await session.publish("chat.room.lobby", [String(number++)]);
      await new Promise((resolve) => setTimeout(resolve));
    }
    return number;
  })();
}"""
COME_AND_GO = """async () => {
  const [status, button] = ["status", "cut"].map((id) => document.getElementById(id));
  const until = async (text) => {
    while (status.textContent !== text) await new Promise((resolve) => setTimeout(resolve));
  };
  for (let times = 0; times < 20; times++) {
    button.click();
    await until("not connected");
    button.click();
    await until("connected as Grace");
  }
}"""


@pytest.fixture
def server() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def port(server: ExitStack) -> int:
    return server.enter_context(serving("uvicorn", "examples.chat:wamp", "--port", "0"))


@pytest.fixture
def open_tab(browser: Browser, port: int) -> Iterator[OpenTab]:
    """Opens the page, joined; in the end, checks that no tab has complained."""
    with watched_context(browser, server_may_be_gone=True) as context:

        def open_tab(name: str, room: str = "lobby") -> Page:
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{port}/")
            page.get_by_label("Your name").fill(name)
            page.get_by_label("Room").select_option(room)
            page.get_by_role("button", name="Join").click()
            expect_connected(page, name)
            return page

        yield open_tab


def expect_connected(page: Page, name: str) -> None:
    expect(page.locator("#status")).to_have_text(f"connected as {name}")


def say(page: Page, *texts: str) -> None:
    for text in texts:
        page.get_by_label("Message", exact=True).fill(text)
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("log").locator("p").last).to_contain_text(text)


def expect_messages(page: Page, *lines: str) -> None:
    expect(page.get_by_role("log").locator("p")).to_have_text(list(lines))


def test_who_was_away_gets_everything_once_and_in_order(open_tab: OpenTab) -> None:
    ada, grace = open_tab("Ada"), open_tab("Grace")
    say(ada, "Hello", "<b>Grace</b>?")
    heard = ["Ada: Hello", "Ada: <b>Grace</b>?"]
    expect_messages(grace, *heard)
    for round_number in (1, 2):
        grace.get_by_role("button", name="Cut the connection").click()
        expect(grace.locator("#status")).to_have_text("not connected")
        expect(grace.get_by_role("button", name="Send")).to_be_disabled()
        missed = [f"{round_number}.{number}" for number in range(3)]
        say(ada, *missed)
        expect_messages(grace, *heard)
        grace.get_by_role("button", name="Come back").click()
        heard += [f"Ada: {text}" for text in missed]
        expect_messages(grace, *heard)
        say(grace, "I'm back")
        heard.append("Grace: I'm back")
        for page in (ada, grace):
            expect_messages(page, *heard)


def test_who_comes_and_goes_among_many_messages_misses_none(open_tab: OpenTab) -> None:
    ada, grace = open_tab("Ada"), open_tab("Grace")
    ada.evaluate(CHATTER)
    grace.evaluate(COME_AND_GO)
    said = ada.evaluate("() => { window.enough = true; return window.chatter; }")
    lines = grace.get_by_role("log").locator("p")
    expect(lines.last).to_have_text(f"Ada: {said - 1}")
    assert lines.all_text_contents() == [f"Ada: {number}" for number in range(said)]


def test_a_page_that_is_loaded_shows_the_last_messages(open_tab: OpenTab) -> None:
    ada = open_tab("Ada")
    say(ada, *map(str, range(52)))
    last = [f"Ada: {number}" for number in range(2, 52)]
    ada.reload()
    expect_connected(ada, "Ada")
    expect_messages(ada, *last)
    grace = open_tab("Grace")
    expect_messages(grace, *last)
    say(grace, "So much")
    expect_messages(ada, *last, "Grace: So much")
    grace.get_by_role("button", name="Leave").click()
    expect(grace.get_by_label("Your name")).to_be_visible()


def test_rooms_are_apart(open_tab: OpenTab) -> None:
    ada, grace = open_tab("Ada", "garden"), open_tab("Grace", "library")
    say(ada, "in the garden")
    say(grace, "in the library")
    expect_messages(ada, "Ada: in the garden")
    expect_messages(grace, "Grace: in the library")


def test_what_is_refused_says_why_and_can_be_sent_again(open_tab: OpenTab) -> None:
    ada = open_tab("Ada")
    message = ada.get_by_label("Message", exact=True)
    message.fill("   ")
    message.press("Enter")
    expect(ada.get_by_role("alert")).to_have_text("That wasn't sent: there is nothing to say")
    expect(message).to_have_value("   ")
    say(ada, "something")
    expect(ada.get_by_role("alert")).to_be_hidden()
    expect_messages(ada, "Ada: something")


def test_a_lost_connection_comes_back_by_itself(
    open_tab: OpenTab, server: ExitStack, port: int
) -> None:
    ada = open_tab("Ada")
    say(ada, "before")
    server.close()
    expect(ada.locator("#status")).to_have_text("not connected, but trying to be")
    expect(ada.get_by_role("button", name="Send")).to_be_disabled()
    server.enter_context(serving("uvicorn", "examples.chat:wamp", "--port", str(port)))
    expect_connected(ada, "Ada")
    expect(ada.get_by_role("alert")).to_be_hidden()
    expect(ada.get_by_role("log")).to_contain_text("Something may be missing here")
    say(ada, "after")
    expect(ada.get_by_role("log").locator("p").first).to_have_text("Ada: before")
