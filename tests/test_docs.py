"""Every code block of the documentation and of the README is executed.

What happens to a block depends on its language; a language that isn't listed here fails.

``python``
    All blocks of a page share one namespace, from top to bottom, on asyncio and on trio. They may
    ``await`` outside of functions, as in ``python -m asyncio``. What a client sees is asserted in
    the blocks themselves; where they ``try`` outside of functions, there has to be an error. A
    block with a file name as its caption (in the README: as the comment in its first line) is a
    module of its own, and a file for the commands further down.
``console``
    Lines that start with ``$``. A server is started, and stays up for the rest of the page; a
    WAMP client joins it at ``/ws``, and plain HTTP gets an answer. ``pytest`` is run. What would
    install something is checked against ``pyproject.toml`` instead.
``javascript``
    Run by Node.js, against the server that the page has started last; and, bundled, in a browser by
    ``tests/browser/test_snippets.py``.
``text``
    What the ``javascript`` block before it prints, at first.
``toml``, ``nginx``
    Parsed; ``toml`` with a caption becomes a file, too.

The ports 8000 and 8080 stand for a free one. Literal blocks, and other directives that show code,
fail: they would be found by nothing.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import anyio
import httpx
import pytest
from websockets import Subprotocol
from websockets.sync.client import connect

import serverwamp
from serverwamp import Application, Realm, testing
from tests.benchmark.__main__ import parsed_options as benchmark_options
from tests.benchmark.cluster import parsed_options as cluster_benchmark_options
from tests.commands import serving
from tests.soak.__main__ import parsed_options as soak_options

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted((ROOT / "docs").glob("*.rst")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
]
PACKAGES = ROOT / "tests" / "clients" / "package.json"
NODE_MODULES = ROOT / "tests" / "clients" / "node_modules"
ENVIRONMENT = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
"""Without what is meant for the tests that are running."""
WEBSOCKET = 'import ws from "ws"; globalThis.WebSocket ??= ws;'
"""Browsers, and Node.js from version 22 on, have a WebSocket of their own."""
PORTS = re.compile(r"\b(8000|8080)\b")
LANGUAGES = {"python", "console", "javascript", "text", "toml", "nginx"}
WELCOME, ABORT = 2, 3
SECONDS = 30.0
"""For whatever a page waits for."""


# ---- finding the blocks


@dataclass(frozen=True)
class Block:
    """A code block: `line` is that of its first line of code."""

    language: str
    code: str
    line: int
    file_name: str | None = None


DIRECTIVE = re.compile(r"( *)\.\. code-block:: *(\S*)$")
OPTION = re.compile(r" +:(\w+): *(.*)$")
OTHER_BLOCKS = re.compile(r"^(?! *\.\. ).*::$|^ *\.\. (code|sourcecode|literalinclude|doctest)::")
"""What would show code without being found: literal blocks and other directives."""


def blocks_of(page: Path) -> list[Block]:
    lines = page.read_text("utf-8").splitlines()
    found = blocks_of_markdown(lines) if page.suffix == ".md" else blocks_of_rst(lines)
    return list(found)


def blocks_of_rst(lines: list[str]) -> Iterator[Block]:
    for number, line in enumerate(lines):
        directive = DIRECTIVE.match(line)
        if directive is None:
            assert not OTHER_BLOCKS.match(line), f"code that isn't in a code-block: {line}"
            continue
        indent, language = directive.groups()
        end = number + 1
        while end < len(lines) and (not lines[end] or lines[end].startswith(indent + " ")):
            end += 1
        body = lines[number + 1 : end]
        options: dict[str, str] = {}
        while not body[0] or OPTION.match(body[0]):
            options.update(OPTION.findall(body.pop(0)))
        code = textwrap.dedent("\n".join(body)).rstrip()
        yield Block(language, code, end - len(body) + 1, options.get("caption"))


def blocks_of_markdown(lines: list[str]) -> Iterator[Block]:
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        body = lines[start + 1 : number]
        name = re.match(r"# (\S+\.py)$", body[0])
        language = lines[start].removeprefix("```")
        yield Block(language, "\n".join(body), start + 2, name and name[1])
        start = None


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(b.language in languages for b in blocks_of(page))]


def name_of(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_of_a_language_that_is_executed(page: Path) -> None:
    assert {block.language for block in blocks_of(page)} <= LANGUAGES


# ---- python


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
async def test_python(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = ModuleType(f"docs_{page.stem}")
    monkeypatch.setitem(sys.modules, shared.__name__, shared)
    with anyio.fail_after(SECONDS):
        for block in blocks_of(page):
            if block.language != "python":
                continue
            if block.file_name is None:
                await execute(block, page, shared)
            else:
                module = ModuleType(Path(block.file_name).stem)
                monkeypatch.setitem(sys.modules, module.__name__, module)
                await execute(block, page, module)
                for name, value in vars(module).items():
                    if not name.startswith("__"):
                        setattr(shared, name, value)


async def test_the_example_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    block = blocks_of(ROOT / "README.md")[0]
    example = ModuleType("example")
    monkeypatch.setitem(sys.modules, example.__name__, example)
    await execute(block, ROOT / "README.md", example)
    async with testing.connect(example.wamp) as client:
        await client.subscribe("chat.messages")
        assert (await client.expect_event()).args == ("Welcome!",)
        assert (await client.call("chat.say", ["Hello!", 2])).args == ("said 2 times",)
        assert (await client.expect_event()).args == ("Hello!",)


async def execute(block: Block, page: Path, module: ModuleType) -> None:
    source = "\n" * (block.line - 1) + block.code  # so that tracebacks name the line of the page
    tree = ast.fix_missing_locations(ErrorsThatAreShown().visit(ast.parse(source)))
    code = compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, vars(module))
    else:
        exec(code, vars(module))


class ErrorsThatAreShown(ast.NodeTransformer):
    """Makes every ``try`` outside of functions fail if nothing is raised."""

    def visit_Try(self, node: ast.Try) -> ast.Try:
        if node.handlers and not node.orelse:
            node.orelse = ast.parse("raise AssertionError('nothing was raised')").body
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        return node


# ---- commands


@pytest.mark.process
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            marks=[pytest.mark.node] if page in pages_with("javascript") else [],
            id=name_of(page),
        )
        for page in pages_with("console", "javascript", "toml", "nginx")
    ],
)
def test_commands(page: Path, tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        for block in blocks_of(page):
            shell.execute(block)


class Shell:
    """Runs the commands of a page, in a directory with the files of that page."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._output = ""
        """What the JavaScript has printed."""
        self._port = 0
        self._server = ExitStack()

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def execute(self, block: Block) -> None:
        """Do what the language of a block says."""
        if block.file_name is not None:
            self.write(block.file_name, block.code)
        if block.language == "console":
            self.run(block.code)
        elif block.language == "javascript":
            self.run_javascript(self._script(block.code))
        elif block.language == "text":
            self.check_output(block.code + "\n")
        elif block.language == "toml":
            tomllib.loads(block.code)
        elif block.language == "nginx":
            check_nginx(block.code)

    def write(self, name: str, code: str) -> None:
        (self.directory / name).write_text(PORTS.sub("0", code), "utf-8")

    def run(self, lines: str) -> None:
        for line in lines.replace("\\\n", " ").splitlines():
            assert line.startswith("$ "), f"only commands are expected, each after a $: {line}"
            for command in line[2:].split("&&"):
                self._run(shlex.split(command))

    def _run(self, command: list[str]) -> None:
        program, arguments = command[0].removeprefix(".venv/bin/"), command[1:]
        if program == "pip":
            check_installed(arguments)
        elif command[:2] == ["npm", "install"]:
            check_packages(command[2:])
        elif command[:3] == ["python3", "-m", "venv"]:
            pass  # creates what is there already
        elif command == [".venv/bin/pytest"]:  # is running; here it only has to start
            self._finish(sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", __file__)
        elif program == "pytest":
            self._finish(sys.executable, "-m", "pytest", *arguments)
        elif program == "uvicorn":
            self._serve("uvicorn", *arguments, "--port", "0")
        elif program == "hypercorn":
            self._serve("hypercorn", *arguments, "--bind", "127.0.0.1:0", "--workers", "0")
        elif command[:3] == ["python", "-m", "tests.benchmark.cluster"]:
            cluster_benchmark_options(command[3:])
        elif command[:3] == ["python", "-m", "tests.benchmark"]:
            benchmark_options(command[3:])  # takes minutes; .ci/run runs its quick form
        elif command[:3] == ["python", "-m", "tests.soak"]:
            soak_options(command[3:])  # likewise
        else:
            assert program == "python", f"there is no way to check {command}"
            self._serve(arguments[0].removesuffix(".py"), *arguments[1:])

    def _finish(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _serve(self, *command: str) -> None:
        self._server.close()
        self._port = self._server.enter_context(serving(*command, directory=self.directory))
        check_served(self._port)

    def _script(self, code: str) -> Path:
        """Write a block of JavaScript to a file next to the packages that it may import."""
        if shutil.which("node") is None or not NODE_MODULES.exists():
            missing = "Node.js, or what `npm ci` installs in tests/clients, is missing"
            pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
        modules = self.directory / "node_modules"
        if not modules.exists():
            modules.symlink_to(NODE_MODULES, target_is_directory=True)
        script = self.directory / "block.mjs"
        script.write_text(PORTS.sub(str(self._port), code), "utf-8")
        return script

    def run_javascript(self, script: Path) -> None:
        code = script.read_text("utf-8")
        script.write_text(f"{WEBSOCKET}\n{code}", "utf-8")
        self._output = self._finish("node", str(script))

    def check_output(self, expected: str) -> None:
        """Check what the JavaScript has printed at first."""
        assert self._output.startswith(expected)


def check_served(port: int) -> None:
    """A client can join at ``/ws``, unless it has to log in; plain HTTP is answered."""
    with connect(
        f"ws://127.0.0.1:{port}/ws", subprotocols=[Subprotocol("wamp.2.json")], open_timeout=SECONDS
    ) as client:
        client.send(json.dumps([1, "realm1", {"roles": {"caller": {}}}]))
        code, *_, last = json.loads(client.recv(SECONDS))
        if code == ABORT:
            assert last == "wamp.error.authentication_required"
        else:
            assert code == WELCOME
    assert httpx.get(f"http://127.0.0.1:{port}/", timeout=SECONDS).status_code in (200, 404, 426)


def check_installed(arguments: list[str]) -> None:
    """What is installed is this package, with extras that it has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    action, *requirements = (argument for argument in arguments if argument != "-e")
    assert action == "install"
    for requirement in requirements:
        named = re.fullmatch(r"(?:\.|serverwamp)(?:\[(.+)\])?", requirement)
        assert named, f"{requirement} isn't this package"
        for extra in filter(None, (named[1] or "").split(",")):
            assert extra in project["optional-dependencies"]


def check_packages(names: list[str]) -> None:
    """The packages for JavaScript are those with which the snippets are run."""
    assert set(names) <= set(json.loads(PACKAGES.read_text("utf-8"))["dependencies"])


def check_nginx(code: str) -> None:
    """Directives end with a semicolon, and braces are paired."""
    depth = 0
    for line in filter(None, (line.partition("#")[0].strip() for line in code.splitlines())):
        assert line[-1] in ";{}", line
        depth += line.count("{") - line.count("}")
        assert depth >= 0
    assert depth == 0


# ---- what the package index shows


def test_the_package_says_where_to_find_what() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(project["urls"]) == {"Homepage", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith("https://") for url in project["urls"].values())


def test_the_readme_shows_both_sides_and_says_what_wamp_is() -> None:
    blocks = [block.language for block in blocks_of(ROOT / "README.md")]
    assert blocks[:4] == ["python", "console", "javascript", "text"]
    _, text = (ROOT / "README.md").read_text("utf-8").split("# serverwamp\n", 1)
    sentence = text.split(". ")[0]
    assert "WAMP" in sentence
    assert "protocol" in sentence.lower()


# ---- what a page has to be complete in


def test_the_internals_name_every_module() -> None:
    package = ROOT / "serverwamp"
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }
    page = (ROOT / "docs" / "internals.rst").read_text("utf-8")
    assert modules == set(re.findall(r"\* - ``([\w.]+)``", page))
    named = set(re.findall(r"``([a-z_]+(?:\.[a-z_]+)*)``", page)) - {"await", "yield"}
    assert named <= modules, named - modules


def test_the_api_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "api.rst").read_text("utf-8")
    documented = re.findall(
        r"^\.\. (?:auto(?:class|function|exception)|data):: (\w+)", page, re.MULTILINE
    )
    assert set(serverwamp.__all__) <= set(documented)


@pytest.mark.parametrize("kind", ["Application", "Realm"])
def test_the_api_reference_has_every_method(kind: str) -> None:
    page = (ROOT / "docs" / "api.rst").read_text("utf-8")

    def documented(name: str) -> set[str]:
        section = page.split(f".. autoclass:: {name}\n")[1].split("\n.. ")[0]
        return set(re.findall(r"^   \.\. auto(?:method|property|attribute):: (\w+)", section, re.M))

    expected = documented("Realm")
    if kind == "Application":
        expected |= documented("Application")
    configured = {"Application": Application(), "Realm": Realm("com.realm")}[kind]
    assert {name for name in dir(configured) if not name.startswith("_")} == expected
    configured.freeze()
    assert {name for name in dir(configured) if not name.startswith("_")} == expected
