"""The cryptography of SCRAM, as pure functions.

There are two dialects. `wamp-scram` is the method of the specification. Autobahn and Crossbar
implement an older draft, `scram`. It supports only Argon2, uses the *base64 text* of the hash as
the salted password, and doesn't apply SASLprep to passwords or escape names.

Spec: Advanced Profile, "Salted Challenge Response Authentication Mechanism"; RFC 5802, RFC 4013.
"""

from __future__ import annotations

import hashlib
import hmac
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from typing import Final, Literal, TypeAlias

KDF: TypeAlias = Literal["argon2id13", "pbkdf2"]
"""How a password is hashed. PBKDF2 uses SHA-256, as in RFC 7677. Argon2 also costs memory."""

PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """Normalize a name or password, so that different ways of typing it give the same text.

    Characters that are newer than SASLprep, such as most emoji, stay unchanged.

    Raises: ValueError for prohibited characters, such as control characters, and for text that
        mixes directions of writing.
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if any(is_prohibited(c) for c in prepared for is_prohibited in PROHIBITED):
        raise ValueError("it has characters that can't be in a name or password")
    if any(map(stringprep.in_table_d1, prepared)):  # from right to left
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(map(stringprep.in_table_d2, prepared)):
            raise ValueError("it mixes directions of writing")
    return prepared


def salted_password(
    password: str | bytes, salt: bytes, kdf: KDF, iterations: int, memory: int | None = None
) -> bytes:
    """Hash a password, deliberately slowly; `memory` is in KiB and only used by Argon2.

    Raises: ImportError for Argon2 when PyNaCl isn't installed; ValueError for parameters that the
        function doesn't support.
    """
    secret = password.encode() if isinstance(password, str) else password
    if kdf == "pbkdf2":
        return hashlib.pbkdf2_hmac("sha256", secret, salt, iterations, 32)
    from nacl import pwhash

    kib = memory or 0
    return pwhash.argon2id.kdf(32, secret, salt, opslimit=iterations, memlimit=kib * 1024)


def autobahn_salted_password(salted: bytes) -> bytes:
    """Return the salted password of Autobahn's dialect: the hash in base64 without padding."""
    return b64encode(salted).rstrip(b"=")


def client_key(salted: bytes) -> bytes:
    """Return the key that a client has to prove it knows."""
    return hmac.digest(salted, b"Client Key", "sha256")


def stored_key(salted: bytes) -> bytes:
    """Return the hash of the client key, with which the server checks a client's proof."""
    return hashlib.sha256(client_key(salted)).digest()


def server_key(salted: bytes) -> bytes:
    """Return the key with which the server proves that it knows the user."""
    return hmac.digest(salted, b"Server Key", "sha256")


def auth_message(
    authid: str,
    client_nonce: str,
    nonce: str,
    salt: str,
    iterations: int,
    *,
    channel_binding: str | None = None,
    cbind_data: bytes = b"",
) -> str:
    """Return the text that both sides sign: the exchanged values, in the order of RFC 5802.

    Raises: ValueError when SASLprep doesn't allow `authid`.
    """
    name = saslprep(authid).replace("=", "=3D").replace(",", "=2C")
    flag = "n,," if channel_binding is None else f"p={channel_binding},,"
    bound = b64encode(flag.encode() + cbind_data).decode()
    return f"n={name},r={client_nonce},r={nonce},s={salt},i={iterations},c={bound},r={nonce}"


def autobahn_auth_message(
    authid: str, client_nonce: str, nonce: str, salt: str, iterations: int
) -> str:
    """Return the text that both sides sign in Autobahn's dialect.

    Raises: ValueError when SASLprep doesn't allow `authid`.
    """
    name = saslprep(authid)
    return f"n={name},r={client_nonce},r={nonce},s={salt},i={iterations},c=,r={nonce}"


def client_proof(salted: bytes, message: str) -> str:
    """Return a client's answer in base64: the XOR of its key and a signature."""
    signature = hmac.digest(stored_key(salted), message.encode(), "sha256")
    return b64encode(_xor(client_key(salted), signature)).decode()


def is_client_proof(stored: bytes, message: str, proof: str) -> bool:
    """Tell whether `proof` contains the client's key; compares in constant time."""
    try:
        given = b64decode(proof, validate=True)
    except ValueError:
        given = b""
    padded = given[:32].ljust(32, b"\0")
    found = hashlib.sha256(_xor(padded, hmac.digest(stored, message.encode(), "sha256"))).digest()
    return hmac.compare_digest(found, stored) and len(given) == 32


def server_signature(server: bytes, message: str) -> str:
    """Return the server's proof in base64."""
    return b64encode(hmac.digest(server, message.encode(), "sha256")).decode()


def is_nonce(value: object) -> bool:
    """Tell whether a client's nonce is valid: short printable ASCII without commas and spaces."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= 256
        and value.isascii()
        and value.isprintable()
        and "," not in value
        and " " not in value
    )


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
