"""Publications as bytes, as they travel between processes.

The payload travels encoded, in the first format that can hold it, and never as Python objects.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from serverwamp.errors import SerializationError
from serverwamp.history import StoredEvent
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Args, Event, Kwargs
from serverwamp.protocol.serializers import ALL_FORMATS
from serverwamp.publication import Audience, Publication


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    """A publication, encoded."""

    topic: str
    id: int
    format: int
    """The place of the format of `payload` among all formats; `NO_PAYLOAD` if there is none."""
    payload: Any
    """An EVENT with the arguments, and with what is disclosed of the publisher as its details."""
    audience: Audience | None
    publisher: int | None
    exclude_me: bool
    retain: bool


NO_PAYLOAD: Final = -1

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def packed(publication: Publication) -> bytes:
    """Return a publication as bytes.

    Raises: SerializationError when no format can hold it.
    """
    event = Event(1, publication.id, publication.disclosed, publication.args, publication.kwargs)
    return _packed(publication, *_encoded(event))


def packed_without_payload(publication: Publication) -> bytes:
    """Return as bytes that there is a publication, without its arguments."""
    return _packed(publication, NO_PAYLOAD, b"")


def _packed(publication: Publication, number: int, payload: Unit) -> bytes:
    return _encoder.encode(
        Envelope(
            publication.topic,
            publication.id,
            number,
            payload,
            publication.audience,
            publication.publisher,
            publication.exclude_me,
            publication.retain,
        )
    )


def _encoded(event: Event) -> tuple[int, Unit]:
    failure: SerializationError | None = None
    for number, format_ in enumerate(ALL_FORMATS):
        try:
            return number, format_.encode(event)
        except SerializationError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def unpacked(frame: bytes) -> Publication:
    """Return the publication that `packed` was given.

    Raises: ValueError for anything else, and for a format that this process doesn't have.
    """
    envelope = _decoder.decode(frame)
    event = _decoded(envelope)
    return _publication(envelope, event, event.args or (), event.kwargs or {})


def unpacked_event(frame: bytes, moment: datetime) -> StoredEvent:
    """Return the publication of a frame as it is stored.

    Raises: ValueError as `unpacked` does.
    """
    envelope = _decoder.decode(frame)
    if envelope.format == NO_PAYLOAD:
        return StoredEvent(_publication(envelope, None), moment, None)
    return StoredEvent(_publication(envelope, _decoded(envelope)), moment, envelope.payload)


def has_payload(frame: bytes) -> bool:
    """Tell whether a frame comes from `packed`, and not from `packed_without_payload`."""
    return _decoder.decode(frame).format != NO_PAYLOAD


def _decoded(envelope: Envelope) -> Event:
    if not 0 <= envelope.format < len(ALL_FORMATS):
        raise ValueError("the payload is in a format that isn't installed here")
    event = ALL_FORMATS[envelope.format].decode(envelope.payload)
    if not isinstance(event, Event):
        raise ValueError("the payload isn't an event")
    return event


def _publication(
    envelope: Envelope, event: Event | None, args: Args = (), kwargs: Kwargs | None = None
) -> Publication:
    return Publication(
        envelope.topic,
        args,
        kwargs or {},
        _in_sets(envelope.audience),
        publisher=envelope.publisher,
        exclude_me=envelope.exclude_me,
        disclosed={} if event is None else event.details,
        retain=envelope.retain,
        id=envelope.id,
    )


def _in_sets(audience: Audience | None) -> Audience | None:
    """Return an audience with sets, because each of many subscribers is looked up in them."""
    if audience is None:
        return None
    values = {name: getattr(audience, name) for name in Audience.__struct_fields__}
    sets: dict[str, Any] = {k: None if v is None else frozenset(v) for k, v in values.items()}
    return Audience(**sets)
