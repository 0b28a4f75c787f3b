"""One application with a realm for each of its tenants: the same API, separate data.

Run it::

    uvicorn examples.several_realms:wamp

Clients join ``tenants.red`` or ``tenants.blue`` at ws://127.0.0.1:8000/; no other realm is there.
"""

from collections.abc import AsyncIterator

import serverwamp

# Route sets belong to no realm: they are written once, and added wherever they are served.
notes_api = serverwamp.RPCRouteSet("notes")
notes_topics = serverwamp.TopicRouteSet("notes")


class Notebook:
    def __init__(self, realm: serverwamp.Realm) -> None:
        self.notes: list[str] = []
        self.realm = realm


@notes_api.route("add")
async def add_note(text: str, notebook: Notebook) -> int:
    """Clients supply `text`; `notebook` is their realm's, whatever they send."""
    notebook.notes.append(text)
    await notebook.realm.publish("notes.added", (text,))
    return len(notebook.notes)


@notes_api.route("list")
async def list_notes(notebook: Notebook) -> list[str]:
    """Each note becomes an argument of the result, as the items of every list do."""
    return notebook.notes


@notes_topics.topic("added")
async def watch_notes() -> AsyncIterator[None]:
    yield


wamp = serverwamp.Application(allow_default_realm=False)

for uri in "tenants.red", "tenants.blue":
    realm = serverwamp.Realm(uri)
    realm.add_default_arg("notebook", Notebook(realm))
    realm.add_routes(notes_api)
    realm.add_topics(notes_topics)
    wamp.add_realm(realm)
