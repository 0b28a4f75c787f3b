"""A chat with history: clients publish, and clients that were away catch up.

Run it from the root of the repository, and open http://127.0.0.1:8000 in two tabs::

    pip install -e ".[demo]"
    uvicorn examples.chat:wamp

Cut the connection of one tab with its button, write in the other tab, and reconnect the first one:
it gets the messages that it missed, once and in order.
"""

from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

import serverwamp
from examples.pages import page_routes
from serverwamp import History, RPCResult, Session, WAMPError

app = serverwamp.Application()
rooms = serverwamp.TopicRouteSet("chat.room")

ROOMS = ("lobby", "garden", "library")


def name_of(session: Session) -> str:
    """Return the name that a visitor chose."""
    return str(session.auth_extra.get("name", "")).strip()[:20] or "Somebody"


def check_room(topic: str) -> None:
    if topic.rpartition(".")[2] not in ROOMS:
        raise WAMPError("chat.error.no_such_room", [f"the rooms are {', '.join(ROOMS)}"])


# The history of all rooms together: the last 200 messages, for at most a day.
@rooms.wildcard_topic("", history=History(events=200, age=24 * 3600))
async def listen(topic: str) -> AsyncIterator[None]:
    check_room(topic)
    yield


# The handler replaces what the client sent, so nobody can write under another name.
@rooms.wildcard_publication("")
async def say(
    text: Annotated[str, Meta(max_length=500)], topic: str, session: Session
) -> RPCResult:
    check_room(topic)
    if not text.strip():
        raise WAMPError("chat.error.no_text", ["there is nothing to say"])
    return RPCResult(kwargs={"name": name_of(session), "text": text.strip()})


app.add_topics(rooms)


wamp = Starlette(routes=[WebSocketRoute("/ws", app), *page_routes("chat.html")])
