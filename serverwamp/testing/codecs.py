"""Encode and decode messages for the test client.

They are independent of the package's own codecs. Otherwise, tests wouldn't find mistakes in these.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgpack

from serverwamp.protocol.formats import Unit

with suppress(ImportError):  # cbor2 is optional
    import cbor2


def encoded(message: Sequence[Any], subprotocol: str) -> Unit:
    """Return a raw message as a unit of that subprotocol."""
    if "json" in subprotocol:
        return json.dumps(message, default=_binary_text)
    if "cbor" in subprotocol:
        packed: bytes = cbor2.dumps(message)
    else:
        packed = msgpack.packb(message, datetime=True)
    return packed


def decoded(unit: Unit, subprotocol: str) -> list[Any]:
    """Return the raw message in a unit of that subprotocol.

    Raises: ValueError, or what the library raises, when it is malformed.
    """
    message: list[Any]
    if isinstance(unit, str):
        message = _with_binary(json.loads(unit, parse_constant=_refuse_constant))
    else:
        message = (cbor2.loads if "cbor" in subprotocol else msgpack.unpackb)(unit)
    return message


def _binary_text(value: Any) -> str:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"JSON can't express objects of type {type(value).__name__}: {value!r}")
    return "\0" + b64encode(value).decode()


def _with_binary(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("\0"):
        return b64decode(value[1:], validate=True)
    if isinstance(value, list):
        return [_with_binary(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_binary(item) for key, item in value.items()}
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} isn't JSON")
