"""Predefined URIs with their meaning, and the rules a URI has to obey.

A URI is a string of components joined by ``.``; no component holds white space, ``#`` or ``.``, nor
NUL, because JSON can't express text that begins with it.
Patterns relax that: a *wildcard* may have empty components, a *prefix* an empty last one.

Spec: Basic Profile, "URIs" and "Uniform Resource Identifiers (URIs) reference".
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

MatchPolicy: TypeAlias = Literal["exact", "prefix", "wildcard"]
"""How a pattern is understood that is asked for, or offered."""
InvokePolicy: TypeAlias = Literal["single", "roundrobin", "random", "first", "last"]
"""Which of several callees of a procedure is called."""

# ---- errors: carried by ERROR and ABORT
INVALID_URI: Final = "wamp.error.invalid_uri"
"""A realm, topic, procedure or reason is not a valid, or not an allowed, URI."""
NO_SUCH_PROCEDURE: Final = "wamp.error.no_such_procedure"
"""No procedure matches the URI of a CALL."""
NO_SUCH_SUBSCRIPTION: Final = "wamp.error.no_such_subscription"
"""The session holds no subscription of that id."""
PROCEDURE_ALREADY_EXISTS: Final = "wamp.error.procedure_already_exists"
"""Somebody has registered the procedure, and shares it with nobody, or not in that way."""
NO_SUCH_REGISTRATION: Final = "wamp.error.no_such_registration"
"""The session holds no registration of that id."""
NO_SUCH_SESSION: Final = "wamp.error.no_such_session"
"""No session of that id is open in the realm."""
INVALID_ARGUMENT: Final = "wamp.error.invalid_argument"
"""Arguments, or a result, that can't be accepted or serialized."""
RUNTIME_ERROR: Final = "wamp.error.runtime_error"
"""A handler failed with an exception that is nobody's business but the server's."""
CANCELED: Final = "wamp.error.canceled"
"""The call was cancelled before it had a result."""
TIMEOUT: Final = "wamp.error.timeout"
"""The call had no result within the time its caller gave it."""
OPTION_NOT_ALLOWED: Final = "wamp.error.option_not_allowed"
"""The request carries an option that isn't offered here."""
PAYLOAD_SIZE_EXCEEDED: Final = "wamp.error.payload_size_exceeded"
"""The answer is longer than the client can receive."""
FEATURE_NOT_SUPPORTED: Final = "wamp.error.feature_not_supported"
"""Whom the request concerns lacks the feature of the protocol that it takes."""
NOT_AUTHORIZED: Final = "wamp.error.not_authorized"
"""The action is not allowed to this session."""
AUTHORIZATION_FAILED: Final = "wamp.error.authorization_failed"
"""What decides about the action failed itself."""
UNAVAILABLE: Final = "wamp.error.unavailable"
"""A limit is reached: what is asked for may be possible later."""
PROTOCOL_VIOLATION: Final = "wamp.error.protocol_violation"
"""The peer sent what the protocol doesn't allow, or not now."""
NO_SUCH_REALM: Final = "wamp.error.no_such_realm"
"""No realm of that URI exists."""
NO_MATCHING_AUTH_METHOD: Final = "wamp.error.no_matching_auth_method"
"""None of the authentication methods that the client offered is offered here."""
AUTHENTICATION_REQUIRED: Final = "wamp.error.authentication_required"
"""The realm wants credentials and the client offered none."""
AUTHENTICATION_FAILED: Final = "wamp.error.authentication_failed"
"""Authentication ended without an identity."""

# ---- reasons: carried by GOODBYE
SYSTEM_SHUTDOWN: Final = "wamp.close.system_shutdown"
"""The peer is going down."""
CLOSE_REALM: Final = "wamp.close.close_realm"
"""The peer leaves the realm."""
GOODBYE_AND_OUT: Final = "wamp.close.goodbye_and_out"
"""The answer to a GOODBYE."""
KILLED: Final = "wamp.close.killed"
"""The session was ended by an administrator, or because it was idle."""

RESERVED_PREFIX: Final = "wamp."
"""Only the protocol itself names procedures and topics below this."""

# fullmatch, not `^...$`: with `$` Python lets a trailing newline pass.
_COMPONENT = r"[^\s.#\0]+"
_VALID = {
    "exact": re.compile(rf"(?:{_COMPONENT}\.)*{_COMPONENT}"),
    "prefix": re.compile(rf"(?:{_COMPONENT}\.)*(?:{_COMPONENT})?"),
    "wildcard": re.compile(r"(?:[^\s.#\0]*\.)*[^\s.#\0]*"),
}


def is_valid_uri(uri: str, match: MatchPolicy = "exact") -> bool:
    """Tell whether `uri` is valid where `match` ("exact", "prefix", "wildcard") is meant.

    Spec: Basic Profile, "URIs", loose checks.
    """
    return _VALID[match].fullmatch(uri) is not None


def is_reserved(uri: str) -> bool:
    """Tell whether only the protocol itself may use `uri` for procedures and topics."""
    return uri.startswith(RESERVED_PREFIX) or uri == "wamp"


def joined(prefix: str, uri: str) -> str:
    """Return `uri` below `prefix`, with exactly one ``.`` between them."""
    return f"{prefix.rstrip('.')}.{uri}" if prefix else uri


def match_of(pattern: str) -> MatchPolicy:
    """Return how a pattern is to be understood, by its look."""
    if "" in pattern.split(".")[:-1]:
        return "wildcard"
    return "prefix" if pattern.endswith(".") or not pattern else "exact"
