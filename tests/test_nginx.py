"""The configurations for nginx that the documentation shows, in a real nginx."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serverwamp.testing import HandshakeRefused
from tests.commands import serving
from tests.helpers import free_port
from tests.sockets import connect_socket
from tests.test_docs import ROOT, Block, blocks_of

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
START_SECONDS = 10.0
MAIN = """\
daemon off;
error_log stderr;
pid {folder}/nginx.pid;
events {{}}
http {{
access_log off;
{temporary}
{site}
}}
"""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

pytestmark = pytest.mark.skipif(
    NGINX is None and os.environ.get("CI") != "true", reason="nginx isn't installed"
)


def shown(page: str) -> list[Block]:
    return [block for block in blocks_of(ROOT / "docs" / page) if block.language == "nginx"]


@contextmanager
def nginx(site: str, ports: dict[int, int], folder: Path) -> Iterator[int]:
    """Run nginx by a configuration with other ports than it says; give the one of its 8080."""
    assert NGINX is not None
    port = free_port()
    for number, other in {8080: port, **ports}.items():
        site = re.sub(rf"\b{number}\b", str(other), site)
    temporary = "\n".join(f"{name}_temp_path {folder}/{name};" for name in TEMPORARY)
    configuration = folder / "nginx.conf"
    configuration.write_text(MAIN.format(folder=folder, temporary=temporary, site=site), "utf-8")
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-c", str(configuration)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until_it_listens(process, port)
        yield port
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=START_SECONDS)
    assert "[emerg]" not in errors, errors


def wait_until_it_listens(process: subprocess.Popen[str], port: int) -> None:
    """Nginx doesn't say when it listens: connect until that works, or until it has ended."""
    transport = httpx.HTTPTransport(retries=6)  # with waits that double, 15 seconds together
    with httpx.Client(transport=transport) as client:
        try:
            client.get(f"http://127.0.0.1:{port}/", timeout=START_SECONDS)
        except httpx.ConnectError:
            process.kill()
            raise AssertionError(process.communicate()[1]) from None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page about serving has its readers write."""
    folder = tmp_path_factory.mktemp("site")
    for block in blocks_of(ROOT / "docs" / "serving.rst"):
        if block.file_name is not None:
            (folder / block.file_name).write_text(block.code, "utf-8")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[int]:
    with serving("uvicorn", "service:wamp", "--port", "0", directory=folder) as port:
        yield port


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[int]:
    command = ("with_starlette:site", "--root-path", "/shop", "--port", "0")
    with serving("uvicorn", *command, directory=folder) as port:
        yield port


@pytest.fixture(scope="module", params=shown("serving.rst") + shown("security.md"))
def port(
    request: pytest.FixtureRequest,
    service: int,
    site: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[int]:
    """The port of an nginx for each configuration of the documentation."""
    folder = tmp_path_factory.mktemp("nginx")
    with nginx(request.param.code, {8000: service, 8001: site}, folder) as port:
        yield port


async def add(port: int, path: str, **options: Any) -> Any:
    async with connect_socket(port, path=path, **options) as client:
        return (await client.call("math.add", [2, 3])).args


def page_at(port: int) -> dict[str, dict[str, str]]:
    return {"headers": {"Origin": f"http://127.0.0.1:{port}"}}


async def test_a_page_at_any_port_can_connect(port: int) -> None:
    assert await add(port, "/ws", **page_at(port)) == (5,)
    assert await add(port, "/ws") == (5,)


async def test_a_page_of_another_port_is_refused(port: int) -> None:
    with pytest.raises(HandshakeRefused):
        await add(port, "/ws", **page_at(port + 1))


@pytest.mark.parametrize("port", shown("serving.rst"), indirect=True, ids=["serving"])
async def test_a_whole_site_below_a_path(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as browser:
        page = await browser.get("/shop/")
    assert (page.status_code, page.text) == (200, "An ordinary page")
    assert await add(port, "/shop/ws", **page_at(port)) == (5,)


async def test_without_its_port_in_the_header_a_page_is_refused(
    service: int, site: int, tmp_path: Path
) -> None:
    block = shown("serving.rst")[0]
    assert "Host $http_host;" in block.code
    without = block.code.replace("Host $http_host;", "Host $host;")
    with nginx(without, {8000: service, 8001: site}, tmp_path) as port:
        with pytest.raises(HandshakeRefused):
            await add(port, "/ws", **page_at(port))
