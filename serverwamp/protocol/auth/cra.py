"""The mathematics of challenges, as pure functions.

Spec: Advanced Profile, "Challenge Response Authentication".
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from base64 import b64encode, urlsafe_b64encode
from typing import Any


def derive_cra_secret(
    secret: str | bytes, salt: str, iterations: int = 1000, keylen: int = 32
) -> str:
    """Return the key to store and to sign with instead of `secret`: PBKDF2-HMAC-SHA256 as base64.

    `keylen` is in bytes, before base64. It takes about half a microsecond an iteration.

    Spec: "Salted Passwords". That the key is the base64 *text* isn't said there; all clients do it.
    """
    key = hashlib.pbkdf2_hmac("sha256", _encoded(secret), salt.encode(), iterations, keylen)
    return b64encode(key).decode()


def cra_credential(secret: str | bytes, *, iterations: int = 10_000) -> dict[str, Any]:
    """Return what to store of a password: ``CRAAuthRequirement(**stored)`` is made of it.

    It can be written as JSON. Clients in JavaScript may need a second for 100000 iterations.
    """
    salt = secrets.token_urlsafe(16)
    key = derive_cra_secret(secret, salt, iterations)
    return {"secret": key, "salt": salt, "iterations": iterations}


def salt_like(example: str, key: bytes, authid: str) -> str:
    """Return a salt that looks as if it were made like `example`; one `authid` has always the same.

    It is hexadecimal if the example is, and otherwise base64, URL-safe unless the example isn't.
    """
    seed = hmac.digest(key, authid.encode(), "sha256")
    text = example.rstrip("=")
    padding = example[len(text) :]
    if set(example) <= set("0123456789abcdef"):
        return hashlib.shake_256(seed).hexdigest(len(text))[: len(text)]
    encoded = b64encode if padding or set(text) & set("+/") else urlsafe_b64encode
    # As many bytes as base64 of this length stands for: its last character would tell.
    size = len(text) * 3 // 4 + (len(text) % 4 == 1)
    return encoded(hashlib.shake_256(seed).digest(size)).decode()[: len(text)] + padding


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
