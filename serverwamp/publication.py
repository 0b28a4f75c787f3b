"""Publications: their payload, their publisher, and their audience."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from serverwamp.protocol.ids import new_publication_id
from serverwamp.session import Session


class Audience(Struct, frozen=True):
    """Selects the subscribers that receive an event.

    A subscriber receives it if no `exclude*` collection contains it and every `eligible*`
    collection that isn't None contains it.
    """

    exclude: Collection[int] = ()
    """Ids of sessions that don't receive it."""
    eligible: Collection[int] | None = None
    """Ids of the only sessions that receive it."""
    exclude_authid: Collection[str] = ()
    """Values of `Session.auth_id` that don't receive it."""
    eligible_authid: Collection[str] | None = None
    """The only values of `Session.auth_id` that receive it."""
    exclude_authrole: Collection[str] = ()
    """Values of `Session.auth_role` that don't receive it."""
    eligible_authrole: Collection[str] | None = None
    """The only values of `Session.auth_role` that receive it."""

    def includes(self, session: Session) -> bool:
        """Tell whether a subscribed session receives the event."""
        return (
            _selects(session.id, self.exclude, self.eligible)
            and _selects(session.auth_id, self.exclude_authid, self.eligible_authid)
            and _selects(session.auth_role, self.exclude_authrole, self.eligible_authrole)
        )


def _selects(value: Any, exclude: Collection[Any], eligible: Collection[Any] | None) -> bool:
    return value not in exclude and (eligible is None or value in eligible)


class Publication(Struct, frozen=True):
    """A publication to a topic."""

    topic: str
    """The topic URI."""
    args: Sequence[Any] = ()
    """The positional arguments."""
    kwargs: Mapping[str, Any] = {}
    """The keyword arguments."""
    audience: Audience | None = None
    """The subscribers that receive it; None for all of them."""
    publisher: int | None = None
    """The id of the session that published it; None if the application did."""
    exclude_me: bool = True
    """Whether the publishing session doesn't receive it."""
    disclosed: Mapping[str, Any] = {}
    """What all receivers are told about the publisher, in the details of EVENT."""
    retain: bool = False
    """Whether the publisher asked to retain it for later subscribers."""
    id: int = field(default_factory=new_publication_id)
    """The publication id, which is the same for all receivers."""

    def is_for(self, session: Session) -> bool:
        """Tell whether a subscribed session receives the publication."""
        if self.exclude_me and session.id == self.publisher:
            return False
        return self.audience is None or self.audience.includes(session)


def disclosure(publisher: Session) -> Mapping[str, Any]:
    """Return what the details of EVENT say about the publisher.

    Spec: Advanced Profile, "Publisher Identification".
    """
    details = {
        "publisher": publisher.id,
        "publisher_authid": publisher.auth_id,
        "publisher_authrole": publisher.auth_role,
    }
    return {name: value for name, value in details.items() if value is not None}
