"""Publications: their payload, their publisher, and their audience."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from serverwamp import uris
from serverwamp.errors import checked_args
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


def publication_to(
    topic: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    *,
    exclude: Iterable[Session | int] | Session | int = (),
    eligible: Iterable[Session | int] | Session | int | None = None,
    exclude_authid: Iterable[str] | str = (),
    eligible_authid: Iterable[str] | str | None = None,
    exclude_authrole: Iterable[str] | str = (),
    eligible_authrole: Iterable[str] | str | None = None,
    publisher: Session | None = None,
    exclude_me: bool = True,
    disclose_me: bool = False,
    retain: bool = False,
) -> Publication:
    """Return a publication of the application; see `Realm.publish`.

    Raises: ValueError when `topic` is invalid or reserved for the protocol; TypeError when `args`
    is a text.
    """
    if not uris.is_valid_uri(topic) or uris.is_reserved(topic):
        raise ValueError(f"{topic!r} is not a valid URI for a topic")
    audience = None
    if (
        (exclude or exclude_authid or exclude_authrole)
        or eligible is not None
        or eligible_authid is not None
        or eligible_authrole is not None
    ):
        audience = Audience(
            exclude=_ids(exclude),
            eligible=None if eligible is None else _ids(eligible),
            exclude_authid=_texts(exclude_authid),
            eligible_authid=None if eligible_authid is None else _texts(eligible_authid),
            exclude_authrole=_texts(exclude_authrole),
            eligible_authrole=None if eligible_authrole is None else _texts(eligible_authrole),
        )
    return Publication(
        topic,
        checked_args(args),
        kwargs or {},
        audience,
        publisher=None if publisher is None else publisher.id,
        exclude_me=exclude_me,
        disclosed=disclosure(publisher) if publisher is not None and disclose_me else {},
        retain=retain,
    )


def _ids(sessions: Iterable[Session | int] | Session | int) -> frozenset[int]:
    if isinstance(sessions, (Session, int)):
        sessions = (sessions,)
    return frozenset(item.id if isinstance(item, Session) else item for item in sessions)


def _texts(texts: Iterable[str] | str) -> frozenset[str]:
    return frozenset((texts,) if isinstance(texts, str) else texts)
