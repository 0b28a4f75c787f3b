"""What several tests need: looks at what an application holds, inside of it."""

from __future__ import annotations

from typing import Any

from serverwamp import Application, Realm
from serverwamp.router.broker import Broker
from serverwamp.router.dealer import Dealer
from serverwamp.serving.connection import Connection


def connections_of(app: Application) -> set[Connection]:
    """Return the connections that are served."""
    return app._server.connections


def broker_of(realm: Realm) -> Broker:
    """Return the subscriptions of a realm."""
    return realm.freeze().broker


def dealer_of(realm: Realm) -> Dealer[Any]:
    """Return the registrations of a realm."""
    return realm.freeze().dealer
