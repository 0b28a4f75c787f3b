"""One pydantic model for the HTTP API and the WAMP API of a FastAPI application.

Run it::

    pip install fastapi
    uvicorn examples.fastapi_mount:app

http://127.0.0.1:8000/docs describes the HTTP API. WAMP is at ws://127.0.0.1:8000/ws/. There the
procedure ``books.add`` takes the same data as ``POST /books``. Both publish to the topic
``books.added``.
"""

from collections.abc import AsyncIterator

from fastapi import FastAPI
from pydantic import BaseModel, Field

import serverwamp


class Book(BaseModel):
    title: str = Field(min_length=1)
    year: int = Field(ge=1450)


wamp = serverwamp.Application()
app = FastAPI(title="Books", lifespan=lambda app: wamp.graceful_shutdown())
app.mount("/ws", wamp)

shelf: list[Book] = []


@app.get("/books")
async def list_books() -> list[Book]:
    return shelf


@app.post("/books", status_code=201)
@wamp.route("books.add")
async def add_book(book: Book) -> Book:
    """Add a book. Both APIs check it before this function is called, and both return it."""
    shelf.append(book)
    await wamp.publish("books.added", (book,))
    return book


@wamp.topic("books.added")
async def watch_books() -> AsyncIterator[None]:
    yield
