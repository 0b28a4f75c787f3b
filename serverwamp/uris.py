"""Predefined URIs with their meanings, and the rules for valid URIs.

A URI consists of components joined by ``.``. A component is not empty, and contains no white space,
``#``, ``.`` or NUL. NUL is excluded because JSON can't express a text that begins with it.
Patterns relax this: a *wildcard* may have empty components, a *prefix* may have an empty last one.

Spec: Basic Profile, "URIs" and "Uniform Resource Identifiers (URIs) reference".
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

MatchPolicy: TypeAlias = Literal["exact", "prefix", "wildcard"]
"""How a URI in a request is compared with others."""
InvokePolicy: TypeAlias = Literal["single", "roundrobin", "random", "first", "last"]
"""How one of several callees of a procedure is chosen."""

# ---- errors: carried by ERROR and ABORT
INVALID_URI: Final = "wamp.error.invalid_uri"
"""The URI of a realm, topic, procedure or reason is not valid, or not allowed here."""
NO_SUCH_PROCEDURE: Final = "wamp.error.no_such_procedure"
"""No procedure matches the URI of a CALL."""
NO_SUCH_SUBSCRIPTION: Final = "wamp.error.no_such_subscription"
"""The session has no subscription with that id."""
PROCEDURE_ALREADY_EXISTS: Final = "wamp.error.procedure_already_exists"
"""The procedure is registered already, and can't be shared with the requested policy."""
NO_SUCH_REGISTRATION: Final = "wamp.error.no_such_registration"
"""The session has no registration with that id."""
NO_SUCH_SESSION: Final = "wamp.error.no_such_session"
"""The realm has no open session with that id."""
INVALID_ARGUMENT: Final = "wamp.error.invalid_argument"
"""Arguments or results can't be accepted or serialized."""
RUNTIME_ERROR: Final = "wamp.error.runtime_error"
"""A handler raised an exception whose details are not for the client."""
CANCELED: Final = "wamp.error.canceled"
"""The call was cancelled before it had a result."""
TIMEOUT: Final = "wamp.error.timeout"
"""The call had no result within its time limit."""
OPTION_NOT_ALLOWED: Final = "wamp.error.option_not_allowed"
"""The request has an option that isn't offered here."""
PAYLOAD_SIZE_EXCEEDED: Final = "wamp.error.payload_size_exceeded"
"""The answer is longer than the client can receive."""
FEATURE_NOT_SUPPORTED: Final = "wamp.error.feature_not_supported"
"""The request needs a protocol feature that the peer it concerns doesn't support."""
NOT_AUTHORIZED: Final = "wamp.error.not_authorized"
"""The session is not allowed to do this."""
AUTHORIZATION_FAILED: Final = "wamp.error.authorization_failed"
"""The authorizer failed, so that the action could be neither allowed nor denied."""
UNAVAILABLE: Final = "wamp.error.unavailable"
"""A limit is reached; the request may succeed later."""
PROTOCOL_VIOLATION: Final = "wamp.error.protocol_violation"
"""The peer sent something that the protocol doesn't allow, or doesn't allow now."""
NO_SUCH_REALM: Final = "wamp.error.no_such_realm"
"""There is no realm with that URI."""
NO_MATCHING_AUTH_METHOD: Final = "wamp.error.no_matching_auth_method"
"""The realm supports none of the authentication methods that the client offered."""
AUTHENTICATION_REQUIRED: Final = "wamp.error.authentication_required"
"""The realm requires authentication, and the client offered no method."""
AUTHENTICATION_FAILED: Final = "wamp.error.authentication_failed"
"""The client could not be authenticated."""

# ---- reasons: carried by GOODBYE
SYSTEM_SHUTDOWN: Final = "wamp.close.system_shutdown"
"""The peer is shutting down."""
CLOSE_REALM: Final = "wamp.close.close_realm"
"""The peer leaves the realm."""
GOODBYE_AND_OUT: Final = "wamp.close.goodbye_and_out"
"""The answer to a GOODBYE."""
KILLED: Final = "wamp.close.killed"
"""An administrator ended the session, or it was idle for too long."""

RESERVED_PREFIX: Final = "wamp."
"""URIs with this prefix are reserved for the protocol's own procedures and topics."""

# For fullmatch instead of `^...$`, because `$` also matches before a trailing newline.
_COMPONENT = r"[^\s.#\0]+"
_VALID = {
    "exact": re.compile(rf"(?:{_COMPONENT}\.)*{_COMPONENT}"),
    "prefix": re.compile(rf"(?:{_COMPONENT}\.)*(?:{_COMPONENT})?"),
    "wildcard": re.compile(r"(?:[^\s.#\0]*\.)*[^\s.#\0]*"),
}


def is_valid_uri(uri: str, match: MatchPolicy = "exact") -> bool:
    """Tell whether `uri` is valid as a URI, or as a pattern with that `match` policy.

    Spec: Basic Profile, "URIs", loose checks.
    """
    return _VALID[match].fullmatch(uri) is not None


def is_reserved(uri: str) -> bool:
    """Tell whether `uri` is reserved for the protocol's own procedures and topics."""
    return uri.startswith(RESERVED_PREFIX) or uri == "wamp"


def joined(prefix: str, uri: str) -> str:
    """Return `uri` below `prefix`, with exactly one ``.`` between them."""
    return f"{prefix.rstrip('.')}.{uri}" if prefix else uri


def match_of(pattern: str) -> MatchPolicy:
    """Return the match policy that the form of a pattern implies."""
    if "" in pattern.split(".")[:-1]:
        return "wildcard"
    return "prefix" if pattern.endswith(".") or not pattern else "exact"
