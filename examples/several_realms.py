"""One application with a realm for each tenant: the same API, separate data.

Run it::

    uvicorn examples.several_realms:wamp

Clients join ``tenants.red`` or ``tenants.blue`` at ws://127.0.0.1:8000/; there are no other realms.
"""

from collections.abc import AsyncIterator

import serverwamp

# Route sets don't belong to a realm: define them once, and add them to several realms.
notes_api = serverwamp.RPCRouteSet("notes")
notes_topics = serverwamp.TopicRouteSet("notes")


class Notebook:
    def __init__(self, realm: serverwamp.Realm) -> None:
        self.notes: list[str] = []
        self.realm = realm


@notes_api.route("add")
async def add_note(text: str, notebook: Notebook) -> int:
    """Clients supply `text`; the server supplies the `notebook` of their realm."""
    notebook.notes.append(text)
    await notebook.realm.publish("notes.added", (text,))
    return len(notebook.notes)


@notes_api.route("list")
async def list_notes(notebook: Notebook) -> list[str]:
    """Return the notes. Each item of the list becomes one argument of the result."""
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
