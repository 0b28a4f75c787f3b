"""The mathematics of challenges, as pure functions.

Spec: Advanced Profile, "Challenge Response Authentication".
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode


def derive_cra_secret(
    secret: str | bytes, salt: str, iterations: int = 1000, keylen: int = 32
) -> str:
    """Return the key to store and to sign with instead of `secret`: PBKDF2-HMAC-SHA256 as base64.

    `keylen` is in bytes, before base64. It takes about half a microsecond an iteration.

    Spec: "Salted Passwords". That the key is the base64 *text* isn't said there; all clients do it.
    """
    key = hashlib.pbkdf2_hmac("sha256", _encoded(secret), salt.encode(), iterations, keylen)
    return b64encode(key).decode()


def cra_challenge(
    *,
    session: int,
    authid: str,
    authrole: str,
    authprovider: str,
    nonce: str,
    timestamp: str,
) -> str:
    """Return the text that a client has to sign; `timestamp` is UTC in ISO 8601."""
    return json.dumps(
        {
            "authid": authid,
            "authrole": authrole,
            "authmethod": "wampcra",
            "authprovider": authprovider,
            "nonce": nonce,
            "timestamp": timestamp,
            "session": session,
        },
        ensure_ascii=False,
    )


def cra_signature(secret: str | bytes, challenge: str) -> str:
    """Return the signature that answers `challenge`: HMAC-SHA256 as base64."""
    digest = hmac.digest(_encoded(secret), challenge.encode(), "sha256")
    return b64encode(digest).decode()


def is_signature_of(secret: str | bytes, challenge: str, signature: str) -> bool:
    """Tell whether `signature` answers `challenge`, in a time that says nothing about it."""
    expected = cra_signature(secret, challenge)
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))


def _encoded(secret: str | bytes) -> bytes:
    return secret.encode() if isinstance(secret, str) else secret
