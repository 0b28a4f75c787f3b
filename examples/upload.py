"""Files streamed into calls, with progress bars that show how much has arrived.

Run it from the root of the repository, and open http://127.0.0.1:8000 in two tabs::

    pip install -e ".[demo]"
    uvicorn examples.upload:wamp
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from typing import Annotated

import anyio
from msgspec import Meta
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route, WebSocketRoute

import serverwamp
from examples.pages import page_routes
from serverwamp import RPCProgressReport, RPCResult, Session, WAMPError

MOST_BYTES = 256 * 1024 * 1024
MOST_FILES = 10

app = serverwamp.Application()
folder = TemporaryDirectory()  # deleted when the server ends


@dataclass
class Stored:
    key: str
    name: str
    size: int
    sha256: str


stored: dict[str, Stored] = {}  # the oldest first


def path_of(key: str) -> anyio.Path:
    return anyio.Path(folder.name) / key


# ---- calls


@app.route("files.upload")
async def upload(
    name: Annotated[str, Meta(min_length=1, max_length=200)],
    size: Annotated[int, Meta(ge=0, le=MOST_BYTES)],
    chunks: AsyncIterator[bytes],
) -> AsyncIterator[RPCResult]:
    """Store a file that arrives in chunks, and report how much of it has arrived."""
    key = token_urlsafe()
    received, digest = 0, sha256()
    file = await anyio.open_file(path_of(key), "wb")
    try:
        async for chunk in chunks:
            received += len(chunk)
            if received > size:
                break
            await file.write(chunk)
            digest.update(chunk)
            yield RPCProgressReport([received])
        if received != size:
            raise WAMPError(
                "files.error.size", [f"{name!r} doesn't have the announced {size} bytes"]
            )
        stored[key] = Stored(key, name, size, digest.hexdigest())
    finally:  # also runs if the client cancels the call or leaves
        with anyio.CancelScope(shield=True):
            await file.aclose()
            await remove_surplus(key)
    await publish_files()
    yield RPCResult([stored[key]])


async def remove_surplus(key: str) -> None:
    """Delete an incomplete file, or after a complete one the oldest files beyond the limit."""
    surplus = list(stored)[:-MOST_FILES] if key in stored else [key]
    for surplus_key in surplus:
        stored.pop(surplus_key, None)
        await path_of(surplus_key).unlink()


# ---- events


async def publish_files() -> None:
    await app.publish("files.stored", args=list(stored.values()))


@app.topic("files.stored")
async def watch_files(session: Session) -> AsyncIterator[None]:
    session.send_event(args=list(stored.values()))
    yield


# ---- HTTP


async def download(request: Request) -> FileResponse:
    file = stored.get(request.path_params["key"])
    if file is None:
        raise HTTPException(404)
    return FileResponse(
        path_of(file.key), filename=file.name, media_type="application/octet-stream"
    )


wamp = Starlette(
    routes=[
        WebSocketRoute("/ws", app),
        Route("/files/{key}", download),
        *page_routes("upload.html"),
    ]
)
