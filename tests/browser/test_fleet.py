"""The page of examples/fleet.py, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.browser.tabs import watched_context
from tests.browser.test_demo import Browser, Page, browser, expect, pytestmark
from tests.commands import serving

__all__ = ["browser", "pytestmark"]

OpenTab = Callable[[], "Page"]


@pytest.fixture
def server() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def port(server: ExitStack) -> int:
    return server.enter_context(serving("uvicorn", "examples.fleet:wamp", "--port", "0"))


@pytest.fixture
def open_tab(browser: Browser, port: int) -> Iterator[OpenTab]:
    """Opens the page, connected; in the end, checks that no tab has complained."""
    with watched_context(browser, server_may_be_gone=True) as context:

        def open_tab() -> Page:
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{port}/")
            expect(page.locator("#status")).to_have_text("connected")
            return page

        yield open_tab


def ask_to_be_device(page: Page, name: str) -> None:
    page.get_by_label("Name of this device").fill(name)
    page.get_by_role("button", name="Be a device").click()


def be_device(page: Page, name: str) -> Page:
    ask_to_be_device(page, name)
    expect_device(page, name)
    return page


def expect_device(page: Page, name: str) -> None:
    expect(page.locator("#status")).to_have_text(f"connected, and the device {name}")


def row(page: Page, name: str) -> Any:
    lines = page.get_by_label("Devices").get_by_role("listitem")
    return lines.filter(has=page.get_by_text(name, exact=True))


def test_a_device_is_called_from_another_tab(open_tab: OpenTab) -> None:
    page, device = open_tab(), be_device(open_tab(), "lamp")
    lamp = row(page, "lamp")
    lamp.get_by_role("button", name="Measure").click()
    expect(lamp.locator("output")).to_have_text(re.compile(r"^\d+(\.\d)? °C$"))
    lamp.evaluate(
        "row => { window.shown = []; new MutationObserver("
        "() => shown.push(row.querySelector('progress')?.value)"
        ").observe(row, {attributes: true, childList: true, subtree: true}) }"
    )
    lamp.get_by_role("button", name="Blink").click()
    expect(device.locator("body")).to_have_class("blinking")
    expect(lamp.get_by_role("progressbar")).to_have_js_property("value", 1)
    assert 0.5 in page.evaluate("shown")
    expect(lamp.locator("output")).to_have_text("done")
    expect(device.locator("body")).not_to_have_class("blinking")


def test_a_call_can_be_stopped(open_tab: OpenTab) -> None:
    page, device = open_tab(), be_device(open_tab(), "lamp")
    lamp = row(page, "lamp")
    lamp.get_by_role("button", name="Blink").click()
    expect(device.locator("body")).to_have_class("blinking")
    lamp.get_by_role("button", name="Stop").click()
    expect(lamp.locator("output")).to_have_text("stopped")
    expect(device.locator("body")).not_to_have_class("blinking")
    expect(lamp.get_by_role("button", name="Blink")).to_be_visible()


def test_devices_come_and_go(open_tab: OpenTab) -> None:
    page = open_tab()
    expect(page.get_by_text("None yet")).to_be_visible()
    page.get_by_role("button", name="Measure all").click()
    expect(page.get_by_label("Readings")).to_have_text("no device answers")
    lamp, door = be_device(open_tab(), "lamp"), be_device(open_tab(), "door")
    for tab in (page, lamp, door):
        expect(tab.get_by_label("Devices").locator("b")).to_have_text(["lamp", "door"])
    page.get_by_role("button", name="Measure all").click()
    readings = re.compile(r"^lamp: [\d.]+ °C, door: [\d.]+ °C$|^door: .* °C, lamp: .* °C$")
    expect(page.get_by_label("Readings")).to_have_text(readings)
    row(page, "door").get_by_role("button", name="Blink").click()
    expect(row(page, "door").get_by_role("progressbar")).to_be_visible()
    lamp.close()
    expect(row(page, "lamp")).to_have_count(0)
    expect(row(page, "door").locator("output")).to_have_text("done")
    page.get_by_role("button", name="Measure all").click()
    expect(page.get_by_label("Readings")).to_have_text(re.compile(r"^door: [\d.]+ °C$"))
    door.close()
    expect(page.get_by_text("None yet")).to_be_visible()


def test_a_name_is_for_one(open_tab: OpenTab) -> None:
    page, _ = open_tab(), be_device(open_tab(), "lamp")
    for name, problem in (
        ("lamp", "there is a device 'lamp' already"),
        ("a.b", "a name is up to 20 letters and digits"),
    ):
        ask_to_be_device(page, name)
        expect(page.get_by_role("alert")).to_have_text(problem)
    be_device(page, "door")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.get_by_role("button", name="Be a device")).to_be_hidden()


def test_a_device_comes_back_by_itself(open_tab: OpenTab, server: ExitStack, port: int) -> None:
    page, device = open_tab(), be_device(open_tab(), "lamp")
    server.close()
    for tab in (page, device):
        expect(tab.locator("#status")).to_have_text("not connected, but trying to be")
        expect(tab.get_by_role("button", name="Measure all")).to_be_disabled()
    server.enter_context(serving("uvicorn", "examples.fleet:wamp", "--port", str(port)))
    expect_device(device, "lamp")
    row(page, "lamp").get_by_role("button", name="Measure").click()
    expect(row(page, "lamp").locator("output")).to_contain_text("°C")
