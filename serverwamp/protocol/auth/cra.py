"""The cryptography of WAMP-CRA, as pure functions.

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
    """Derive the key that is stored and used to sign instead of `secret`: PBKDF2 as base64.

    PBKDF2 uses HMAC-SHA256. `keylen` is the number of bytes before base64. The time is about half
    a microsecond per iteration.

    Spec: "Salted Passwords". It doesn't say that the key is the base64 *text*, but all clients do
    it that way.
    """
    key = hashlib.pbkdf2_hmac("sha256", _encoded(secret), salt.encode(), iterations, keylen)
    return b64encode(key).decode()


def cra_credential(secret: str | bytes, *, iterations: int = 10_000) -> dict[str, Any]:
    """Return the credential to store for a password; pass it to ``CRAAuthRequirement(**stored)``.

    It can be stored as JSON. JavaScript clients may need a second for 100000 iterations.
    """
    salt = secrets.token_urlsafe(16)
    key = derive_cra_secret(secret, salt, iterations)
    return {"secret": key, "salt": salt, "iterations": iterations}


def salt_like(example: str, key: bytes, authid: str) -> str:
    """Return a decoy salt in the format of `example`; the same `authid` always gets the same salt.

    It is hexadecimal if the example is. Otherwise it is base64 in the example's alphabet.
    """
    seed = hmac.digest(key, authid.encode(), "sha256")
    text = example.rstrip("=")
    padding = example[len(text) :]
    if set(example) <= set("0123456789abcdef"):
        return hashlib.shake_256(seed).hexdigest(len(text))[: len(text)]
    encoded = b64encode if padding or set(text) & set("+/") else urlsafe_b64encode
    # Exactly the bytes that base64 of this length encodes: else the last character would look odd.
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
    """Return the text that the client has to sign; `timestamp` is UTC in ISO 8601."""
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
    """Tell whether `signature` answers `challenge`; compares in constant time."""
    expected = cra_signature(secret, challenge)
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))


def _encoded(secret: str | bytes) -> bytes:
    return secret.encode() if isinstance(secret, str) else secret
