"""Something published: what it says, who has published it, and who receives it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from serverwamp.protocol.ids import new_publication_id
from serverwamp.session import Session


class Audience(Struct, frozen=True):
    """Which of the subscribers an event is for.

    That is who is in none of the collections that exclude, and in each of those that say who is
    eligible, unless that is None.
    """

    exclude: Collection[int] = ()
    """The ids of sessions."""
    eligible: Collection[int] | None = None
    """The ids of sessions."""
    exclude_authid: Collection[str] = ()
    """What `Session.auth_id` may not be."""
    eligible_authid: Collection[str] | None = None
    """What `Session.auth_id` has to be."""
    exclude_authrole: Collection[str] = ()
    """What `Session.auth_role` may not be."""
    eligible_authrole: Collection[str] | None = None
    """What `Session.auth_role` has to be."""

    def includes(self, session: Session) -> bool:
        """Tell whether a session receives the event, if it is subscribed."""
        return (
            _selects(session.id, self.exclude, self.eligible)
            and _selects(session.auth_id, self.exclude_authid, self.eligible_authid)
            and _selects(session.auth_role, self.exclude_authrole, self.eligible_authrole)
        )


def _selects(value: Any, exclude: Collection[Any], eligible: Collection[Any] | None) -> bool:
    return value not in exclude and (eligible is None or value in eligible)


class Publication(Struct, frozen=True):
    """Something published to a topic, for whoever is subscribed there when it arrives."""

    topic: str
    """The URI."""
    args: Sequence[Any] = ()
    """The positional arguments."""
    kwargs: Mapping[str, Any] = {}
    """The keyword arguments."""
    audience: Audience | None = None
    """Which of the subscribers it is for; None for all of them."""
    publisher: int | None = None
    """The id of the session that has published it; None for the application."""
    exclude_me: bool = True
    """Whether that session doesn't receive it."""
    disclosed: Mapping[str, Any] = {}
    """What all who receive it are told of the publisher, as it stands in the details of EVENT."""
    retain: bool = False
    """Whether the publisher wants it to be kept for those who subscribe later."""
    id: int = field(default_factory=new_publication_id)
    """The same for everybody who receives it."""

    def is_for(self, session: Session) -> bool:
        """Tell whether a session receives it, if it is subscribed."""
        if self.exclude_me and session.id == self.publisher:
            return False
        return self.audience is None or self.audience.includes(session)


def disclosure(publisher: Session) -> Mapping[str, Any]:
    """Return what the details of EVENT say of who has published it.

    Spec: Advanced Profile, "Publisher Identification".
    """
    details = {
        "publisher": publisher.id,
        "publisher_authid": publisher.auth_id,
        "publisher_authrole": publisher.auth_role,
    }
    return {name: value for name, value in details.items() if value is not None}
