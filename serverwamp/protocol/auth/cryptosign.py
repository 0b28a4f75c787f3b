"""The cryptography of WAMP-cryptosign, as pure functions: Ed25519, by PyNaCl.

Keys, challenges and signatures are texts of hexadecimal digits.

Spec: Advanced Profile, "Cryptosign-based Authentication".
"""

from __future__ import annotations

import hmac
import re
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
SIGNATURE: Final = re.compile(r"[0-9a-fA-F]{192}")


def is_key(value: object) -> bool:
    """Tell whether a value has the form of a key or a challenge: 32 bytes in hexadecimal."""
    return isinstance(value, str) and KEY.fullmatch(value) is not None


def public_key_of(private_key: str) -> str:
    """Return the public key for a private key.

    Raises: ValueError when `private_key` isn't a key.
    """
    return bytes(_signing_key(private_key).verify_key).hex()


def signed_challenge(private_key: str, challenge: str, channel_id: str | None = None) -> str:
    """Return the answer to a challenge: the signature, followed by the signed bytes.

    `channel_id` identifies the TLS connection. If given, the XOR of it and the challenge is signed.

    Raises: ValueError when `private_key` isn't a key.
    """
    message = signed_message(challenge, channel_id)
    return bytes(_signing_key(private_key).sign(message)).hex()


def signed_message(challenge: str, channel_id: str | None = None) -> bytes:
    """Return the 32 bytes that a client has to sign."""
    octets = bytes.fromhex(challenge)
    if channel_id is None:
        return octets
    return bytes(a ^ b for a, b in zip(octets, bytes.fromhex(channel_id), strict=True))


def is_signed_challenge(
    public_key: str, challenge: str, signature: str, channel_id: str | None = None
) -> bool:
    """Tell whether `signature` signs this challenge with the private key for `public_key`."""
    if SIGNATURE.fullmatch(signature) is None:
        signature = "00" * 96  # so that checking it takes the same time
    octets = bytes.fromhex(signature)
    is_of_challenge = hmac.compare_digest(octets[64:], signed_message(challenge, channel_id))
    try:
        VerifyKey(bytes.fromhex(public_key)).verify(octets)
    except BadSignatureError:
        return False
    return is_of_challenge


def _signing_key(private_key: str) -> SigningKey:
    if not is_key(private_key):
        raise ValueError("a private key is 64 hexadecimal digits")
    return SigningKey(bytes.fromhex(private_key))
