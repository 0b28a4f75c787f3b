"""The routes of the pages of the examples, and of the files that all pages use."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

SHARED = ("style.css", "icon.svg", "wamp.js")


def page_routes(page: str) -> list[Route]:
    """Return the routes of a page at ``/`` and of the files that it refers to."""
    return [file_route("/", page), *(file_route(f"/{name}", name) for name in SHARED)]


def file_route(path: str, name: str) -> Route:
    file = Path(__file__).with_name(name)

    async def send(request: Request) -> FileResponse:
        return FileResponse(file)

    return Route(path, send)
