"""The JavaScript of the documentation and of the README, bundled by esbuild, in a real Chromium."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_demo import SECONDS, Browser, Page, browser
from tests.browser.test_demo import pytestmark as needs_a_browser
from tests.test_docs import NODE_MODULES, Shell, blocks_of, name_of, pages_with

__all__ = ["browser"]

pytestmark = [*needs_a_browser, pytest.mark.node, pytest.mark.process]


class BrowserShell(Shell):
    """Runs JavaScript in a page of the server."""

    def __init__(self, directory: Path, page: Page) -> None:
        super().__init__(directory)
        self._page = page
        self._errors: list[str] = []
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: Any) -> None:
        if message.type == "log":
            self._output += f"{message.text}\n"

    def run_javascript(self, script: Path) -> None:
        bundle = self.directory / "bundle.js"
        esbuild = str(NODE_MODULES / ".bin" / "esbuild")
        self._finish(esbuild, str(script), "--bundle", "--format=esm", f"--outfile={bundle}")
        self._output = ""
        # Whatever the server answers, the page is of the server's origin.
        self._page.goto(f"http://127.0.0.1:{self._port}/")
        self._page.add_script_tag(path=bundle, type="module")

    def check_output(self, expected: str) -> None:
        while not self._output.startswith(expected):
            assert not self._errors
            assert expected.startswith(self._output)
            self._page.wait_for_event("console", timeout=SECONDS * 1000)
        assert not self._errors


@pytest.mark.parametrize("page", pages_with("javascript"), ids=name_of)
def test_javascript(page: Path, browser: Browser, tmp_path: Path) -> None:
    blocks = blocks_of(page)
    while blocks[-1].language != "text":  # what the last snippet prints
        blocks.pop()
    for block, following in pairwise(blocks):
        assert following.language == "text" or block.language != "javascript"
    tab = browser.new_page()
    with BrowserShell(tmp_path, tab) as shell:
        for block in blocks:
            shell.execute(block)
    tab.close()
