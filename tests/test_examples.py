"""Every example, run by the command that its docstring gives, and used over a real socket."""

from __future__ import annotations

import ast
import html
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, NamedTuple

import anyio
import httpx
import pytest

from serverwamp import WAMPError
from serverwamp.testing import Client
from tests.commands import ROOT, serving, started
from tests.helpers import free_ports
from tests.sockets import connect_socket
from tests.test_nginx import NGINX

pytestmark = pytest.mark.process

EXAMPLES = ROOT / "examples"
FREE_PORT = {
    "uvicorn": ["--port", "0"],
    "hypercorn": ["-b", "127.0.0.1:0", "-w", "0"],
    "python": ["-P", "0"],
}


def command_of(name: str) -> list[str]:
    """Return the last command of an example's docstring that runs the example itself."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text("utf-8"))) or ""
    commands = [shlex.split(line) for line in docstring.splitlines() if line.startswith("    ")]
    return next(
        command
        for command in commands
        if any(part.startswith((f"examples.{name}", f"examples/{name}")) for part in command)
    )


class Example(NamedTuple):
    name: str
    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def connect(self, realm: str = "realm1", **options: Any) -> AbstractAsyncContextManager[Client]:
        return connect_socket(self.port, realm, **options)


@pytest.fixture(scope="module")
def example(request: pytest.FixtureRequest) -> Iterator[Example]:
    """A running example, at a port that nobody else has."""
    command = command_of(request.param)
    module = command[2:] if command[0] == "python" else command
    with serving(*module[:1], *FREE_PORT[command[0]], *port_removed(module[1:])) as port:
        yield Example(request.param, port)


def port_removed(arguments: list[str]) -> list[str]:
    """Return the arguments without those that say where to listen: there is a free port instead."""
    kept = list(arguments)
    for option in ("-b", "-P"):
        if option in kept:
            at = kept.index(option)
            del kept[at : at + 2]
    return kept


used: set[str] = set()


def running(name: str) -> pytest.MarkDecorator:
    """Parametrize a test by the running example."""
    used.add(name)
    return pytest.mark.parametrize("example", [name], indirect=True)


async def request(method: str, url: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.request(method, url, **options)


# ---- the demo; tests/browser has what people do with it


@running("demo")
async def test_demo_has_a_page_and_a_socket(example: Example) -> None:
    page = await request("GET", example.url("/"))
    assert page.headers["content-type"].startswith("text/html")
    async with example.connect(path="/ws", authextra={"name": "Ada"}) as ada:
        await ada.subscribe("demo.visitors")
        assert (await ada.expect_event()).args[-1]["name"] == "Ada"
        assert (await ada.call("demo.add", (0.1, 0.2))).args == ("0.3",)
        await ada.subscribe("demo.temperature")
        assert isinstance((await ada.expect_event()).kwargs["celsius"], float)


@running("demo")
async def test_demo_has_members(example: Example) -> None:
    for login in {"ticket": "compiler"}, {"secret": "compiler"}:
        async with example.connect("demo.members", path="/ws", authid="grace", **login) as grace:
            greeting = await grace.call("demo.members.greet")
            assert greeting.args == ("Welcome back, Grace Hopper!",)


@running("demo")
async def test_demo_serves_the_other_pages(example: Example) -> None:
    shared = ("style.css", "icon.svg", "wamp.js")
    for path, topic in (
        ("/chat", "chat.room.lobby"),
        ("/fleet", "devices.online"),
        ("/upload", "files.stored"),
    ):
        for file in ("", *shared):
            answer = await request("GET", example.url(f"{path}/{file}"))
            assert answer.status_code == 200
        async with example.connect(path=f"{path}/ws") as client:
            await client.subscribe(topic)
            with pytest.raises(WAMPError, match="no_such_procedure"):  # one of the demo's own
                await client.call("demo.add", (1, 2))


@pytest.mark.parametrize("example", ["chat", "fleet", "upload"], indirect=True)
async def test_a_page_has_its_files(example: Example) -> None:
    page = await request("GET", example.url("/"))
    assert page.headers["content-type"].startswith("text/html")
    for file, kind in (("style.css", "css"), ("icon.svg", "svg"), ("wamp.js", "javascript")):
        assert f'"{file}"' in page.text or f'"./{file}"' in page.text
        answer = await request("GET", example.url(f"/{file}"))
        assert kind in answer.headers["content-type"]


@pytest.mark.parametrize("name", ["demo", "upload", "chat", "fleet"])
def test_the_python_that_a_page_shows_is_what_runs(name: str) -> None:
    page = (EXAMPLES / f"{name}.html").read_text("utf-8")
    source = (EXAMPLES / f"{name}.py").read_text("utf-8")
    shown = [html.unescape(code) for code in re.findall("<pre>(.*?)</pre>", page, re.DOTALL)]
    assert shown
    for code in shown:
        indented = (textwrap.indent(code, " " * depth) for depth in (0, 4, 8))
        assert any(block in source for block in indented), code


# ---- uploads; tests/browser has what people do with them


@running("upload")
async def test_upload(example: Example) -> None:
    for path in ("/", "/wamp.js"):
        assert (await request("GET", example.url(path))).status_code == 200
    async with example.connect(path="/ws") as client:
        await client.subscribe("files.stored")
        before = (await client.expect_event()).args
        call = await client.start_call(
            "files.upload", ("a.txt", 10), progress=True, receive_progress=True
        )
        for chunk, received in ((b"some ", 5), (b"bytes", 10)):
            await call.send_chunk(chunk)
            assert (await call.progress()).args == (received,)
        await call.end_chunks()
        file = (await call.result()).args[0]
        assert (file["name"], file["size"]) == ("a.txt", 10)
        assert (await client.expect_event()).args == (*before, file)
    answer = await request("GET", example.url(f"/files/{file['key']}"))
    assert answer.content == b"some bytes"
    assert "attachment" in answer.headers["content-disposition"]


@running("upload")
async def test_only_whole_files_are_kept(example: Example) -> None:
    async with example.connect(path="/ws") as client:
        await client.subscribe("files.stored")
        before = (await client.expect_event()).args
        for chunks in ([b"short"], [b"too long", b"by far"]):
            call = await client.start_call("files.upload", ("b.txt", 10), progress=True)
            for chunk in chunks:
                await call.send_chunk(chunk)
            await call.end_chunks()
            with pytest.raises(WAMPError) as failure:
                await call.result()
            assert failure.value.uri == "files.error.size"
        call = await client.start_call(
            "files.upload", ("c.txt", 10, b"some"), progress=True, receive_progress=True
        )
        assert (await call.progress()).args == (4,)
        await call.cancel("kill")
        with pytest.raises(WAMPError) as failure:
            await call.result()
        assert failure.value.uri == "wamp.error.canceled"
        for number in range(11):
            await client.call("files.upload", (f"{number}.txt", 1, b"1"))
            kept = (await client.expect_event()).args
        assert [file["name"] for file in kept] == [f"{number}.txt" for number in range(1, 11)]
    for file, status in ((kept[0], 200), *((file, 404) for file in before)):
        answer = await request("GET", example.url(f"/files/{file['key']}"))
        assert answer.status_code == status


# ---- what clients say to each other; tests/browser has what people see of it


@running("chat")
async def test_chat(example: Example) -> None:
    ada = {"path": "/ws", "authextra": {"name": "Ada"}}
    async with example.connect(**ada) as client, example.connect(path="/ws") as other:
        subscription = await client.subscribe("chat.room.garden")
        await other.subscribe("chat.room.garden")
        await client.publish("chat.room.garden", ["Hello"], acknowledge=True)
        event = await other.expect_event()
        assert event.kwargs == {"name": "Ada", "text": "Hello"}
        await other.publish("chat.room.garden", ["Missed"], acknowledge=True)
        seen = await client.expect_event(subscription)
        assert seen.kwargs == {"name": "Somebody", "text": "Missed"}
        past = await client.catch_up(subscription, after_publication=event.publication)
        assert ([item.kwargs["text"] for item in past.events], past.complete) == (["Missed"], True)
        for text, problem in (
            ("", "no_text"),
            (" ", "no_text"),
            ("x" * 501, "invalid_argument"),
            ([], "invalid_argument"),
        ):
            with pytest.raises(WAMPError, match=problem):
                await client.publish("chat.room.garden", [text], acknowledge=True)
        with pytest.raises(WAMPError, match="no_such_room"):
            await client.publish("chat.room.cellar", ["Hello"], acknowledge=True)
        with pytest.raises(WAMPError, match="no_such_room"):
            await client.subscribe("chat.room.cellar")


@running("fleet")
async def test_fleet(example: Example) -> None:
    async with example.connect(path="/ws") as page:
        await page.subscribe("devices.online")
        assert (await page.expect_event()).args == ()
        async with example.connect(path="/ws") as device:
            with pytest.raises(WAMPError, match="not_authorized"):
                await device.register("fleet.lamp.measure")
            await device.call("devices.join", ["lamp"])
            assert (await page.expect_event()).args == ("lamp",)
            await device.register("fleet.lamp.measure")
            for uri in ("fleet.lamp.blink", "fleet.door.measure"):
                with pytest.raises(WAMPError, match="not_authorized"):
                    await page.register(uri)
            with pytest.raises(WAMPError, match="option_not_allowed"):
                await page.register("fleet.", match="prefix")
            for client, name, problem in (
                (page, "lamp", "name_taken"),
                (page, "a.b", "bad_name"),
                (device, "door", "has_name"),
            ):
                with pytest.raises(WAMPError, match=problem):
                    await client.call("devices.join", [name])
            for procedure, result in (
                ("fleet.lamp.measure", ((21.5,), {})),
                ("devices.survey", ((), {"lamp": 21.5})),
            ):
                pending = await page.start_call(procedure)
                await (await device.expect_invocation()).result([21.5])
                answer = await pending.result()
                assert (answer.args, answer.kwargs) == result
        assert (await page.expect_event()).args == ()
        with pytest.raises(WAMPError, match="no_such_procedure"):
            await page.call("fleet.lamp.measure")


# ---- several processes


async def worker_of(client: Client) -> int:
    worker: int = (await client.call("cluster.worker")).args[0]
    return worker


@pytest.mark.skipif(
    not (NGINX and shutil.which("redis-server")) and os.environ.get("CI") != "true",
    reason="nginx or redis-server isn't installed",
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cluster() -> None:
    room = "chat.room.garden"
    port = str(free_ports(6)[0])  # the example also takes the five that follow
    with started("examples.cluster", "-P", port) as server:
        async with AsyncExitStack() as stack:
            clients: dict[int, Client] = {}
            while len(clients) < 4:
                connection = connect_socket(int(port), path="/ws")
                client = await stack.enter_async_context(connection)
                clients[await worker_of(client)] = client
            subscriptions = {pid: await c.subscribe(room) for pid, c in clients.items()}
            sender, *others = clients
            await clients[sender].publish(room, ["Hello"], acknowledge=True)
            for pid in others:
                event = await clients[pid].expect_event(subscriptions[pid])
                assert event.kwargs["text"] == "Hello"
            kill = [sys.executable, "-m", "examples.cluster", "kill", "-P", port]
            with anyio.fail_after(10):
                outcome = await anyio.run_process(kill, cwd=ROOT)
            killed = int(outcome.stdout.removeprefix(b"Killed worker "))
            assert killed in clients
            survivor = next(client for pid, client in clients.items() if pid != killed)
            await survivor.publish(room, ["Missed"], acknowledge=True)
            async with connect_socket(int(port), path="/ws") as again:
                assert await worker_of(again) != killed
                subscription = await again.subscribe(room)
                past = await again.catch_up(subscription, after_publication=event.publication)
                assert [item.kwargs["text"] for item in past.events] == ["Missed"]
                assert past.complete
            server.wait_for(f"Worker {killed} has ended", 1)
        server.send(signal.SIGTERM)
        server.wait()


# ---- beside HTTP


@running("starlette_mount")
async def test_starlette_mount(example: Example) -> None:
    async with example.connect(path="/ws") as client:
        await client.subscribe("shop.ordered")
        before = (await client.call("shop.count", ("cake",))).args[0]
        answer = await request("POST", example.url("/orders?item=cake"))
        event = await client.expect_event()
        assert event.kwargs == {"item": "cake", "number": answer.json()["number"]}
        assert (await client.call("shop.count", ("cake",))).args == (before + 1,)


@running("fastapi_mount")
async def test_fastapi_mount(example: Example) -> None:
    book = {"title": "Emma", "year": 1815}
    async with example.connect(path="/ws/") as client:
        await client.subscribe("books.added")
        assert (await client.call("books.add", (book,))).args == (book,)
        assert (await client.expect_event()).args == (book,)
        assert (await request("POST", example.url("/books"), json=book)).status_code == 201
        assert (await client.expect_event()).args == (book,)
        with pytest.raises(WAMPError) as failure:
            await client.call("books.add", ({"title": "Emma", "year": 815},))
        assert failure.value.uri == "wamp.error.invalid_argument"
    assert book in (await request("GET", example.url("/books"))).json()
    assert (await request("GET", example.url("/docs"))).status_code == 200


@running("aiohttp_server")
async def test_aiohttp_server(example: Example) -> None:
    async with example.connect(path="/ws") as client:
        assert (await client.call("time.until", ("2100-01-01T00:00:00Z",))).args[0] > 0
        await client.subscribe("time.now")
        assert (await client.expect_event()).args
        assert (await request("GET", example.url("/"))).text.endswith("connected.\n")


# ---- trio


@running("trio_server")
async def test_trio_server(example: Example) -> None:
    async with example.connect() as client:
        prices = await client.call("shop.prices", ("tea",), {"patience": 0.5})
        assert prices.kwargs == {"corner shop": 14, "market": 9}
        await client.subscribe("shop.open")
        assert (await client.expect_event()).args == ("The shops are open.",)


# ---- realms


@running("several_realms")
async def test_several_realms(example: Example) -> None:
    async with example.connect("tenants.red") as red, example.connect("tenants.blue") as blue:
        await red.subscribe("notes.added")
        await blue.subscribe("notes.added")
        await red.call("notes.add", ("of red",))
        await blue.call("notes.add", ("of blue",))
        assert (await red.expect_event()).args == ("of red",)
        assert (await blue.expect_event()).args == ("of blue",)
        assert set((await red.call("notes.list")).args) == {"of red"}
        with pytest.raises(WAMPError) as failure:
            await red.call("notes.add", ("of red", "a notebook of its own"))
        assert failure.value.uri == "wamp.error.invalid_argument"


@running("several_realms")
async def test_there_is_no_other_realm(example: Example) -> None:
    with pytest.raises(WAMPError) as refusal:
        async with example.connect("tenants.green"):
            pass
    assert refusal.value.uri == "wamp.error.no_such_realm"


# ---- authentication


@running("authentication")
@pytest.mark.parametrize(
    ("login", "user"),
    [
        (
            {"headers": {"Cookie": "visit=4711"}, "authmethods": ["cookie"]},
            {"name": "Visitor of the website", "role": "user", "method": "cookie"},
        ),
        (
            {"authid": "robot", "ticket": "oil-can"},
            {"name": "Robot", "role": "user", "method": "ticket"},
        ),
        (
            {"authid": "ada", "secret": "engine"},
            {"name": "Ada", "role": "user", "method": "wampcra"},
        ),
        (
            {"authid": "grace", "secret": "compiler"},
            {"name": "Grace", "role": "admin", "method": "wampcra"},
        ),
        (
            {"authid": "hedy", "password": "frequency"},
            {"name": "Hedy", "role": "user", "method": "wamp-scram"},
        ),
        (
            {"private_key": "7" * 64},
            {"name": "Sensor", "role": "device", "method": "cryptosign"},
        ),
    ],
    ids=["cookie", "ticket", "cra", "salted-cra", "scram", "cryptosign"],
)
async def test_authentication(
    example: Example, login: dict[str, Any], user: dict[str, str]
) -> None:
    async with example.connect(**login) as client:
        assert (await client.call("who.am_i")).kwargs == user


@running("authentication")
@pytest.mark.parametrize(
    "login",
    [
        {"headers": {"Cookie": "visit=1"}, "authmethods": ["cookie", "ticket"], "ticket": "?"},
        {"authid": "robot", "ticket": "rust"},
        {"authid": "nobody", "ticket": "oil-can"},
        {"authid": "ada", "secret": "compiler"},
        {"authid": "grace", "secret": "engine"},
        {"authid": "nobody", "secret": "engine"},
        {"authid": "hedy", "password": "engine"},
        {"private_key": "8" * 64},
    ],
    ids=[
        "cookie",
        "ticket",
        "ticket-of-nobody",
        "cra",
        "salted-cra",
        "cra-of-nobody",
        "scram",
        "cryptosign",
    ],
)
async def test_wrong_credentials_are_refused(example: Example, login: dict[str, Any]) -> None:
    with pytest.raises(WAMPError) as refusal:
        async with example.connect(**login):
            pass
    assert refusal.value.uri == "wamp.error.authentication_failed"


# ---- tests


def test_testing_an_app() -> None:
    command = command_of("testing_an_app")
    # Without the options of the tests that are running.
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    outcome = subprocess.run(
        [sys.executable, "-m", *command, "-n0", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "12 passed" in outcome.stdout


# ---- all of them


def test_no_example_is_left_out() -> None:
    there = {path.stem for path in EXAMPLES.glob("*.py")} - {"__init__", "pages"}
    assert there == used | {"testing_an_app"}
