"""A chat whose rooms remember: clients publish, and whoever was away catches up.

Run it from the root of the repository, and open http://127.0.0.1:8000 in two tabs::

    pip install -e ".[demo]"
    uvicorn examples.chat:wamp

Cut the connection of one of them with its button, write in the other, and let the first come back:
it gets what it has missed, once and in order.
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
    """Return what a visitor wants to be called."""
    return str(session.auth_extra.get("name", "")).strip()[:20] or "Somebody"


def check_room(topic: str) -> None:
    if topic.rpartition(".")[2] not in ROOMS:
        raise WAMPError("chat.error.no_such_room", [f"the rooms are {', '.join(ROOMS)}"])


# All rooms together keep the last 200 messages, for a day at most.
@rooms.wildcard_topic("", history=History(events=200, age=24 * 3600))
async def listen(topic: str) -> AsyncIterator[None]:
    check_room(topic)
    yield


# What is published isn't passed on as it is: nobody speaks in another's name.
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
