"""How the test client logs in: the methods it offers, and how it answers and checks the server."""

from __future__ import annotations

import secrets
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from serverwamp.protocol.auth import cra, scram


class Login:
    """The credentials of a client, for one login."""

    def __init__(
        self,
        authid: str,
        *,
        ticket: str | None,
        secret: str | None,
        password: str | None,
        private_key: str | None,
    ) -> None:
        self._authid = authid
        self._ticket = ticket or ""
        self._secret = secret or ""
        self._password = password or ""
        self._private_key = private_key or ""
        self._server_signature: str | None = None
        offered = {
            "ticket": ticket,
            "wampcra": secret,
            "wamp-scram": password,
            "scram": password,
            "cryptosign": private_key,
        }
        self.authmethods: list[str] = [name for name, had in offered.items() if had is not None]
        self.authextra: dict[str, Any] = {}
        if password is not None:
            self.authextra["nonce"] = secrets.token_urlsafe(16)
        if private_key is not None:
            from serverwamp.protocol.auth import cryptosign

            self.authextra["pubkey"] = cryptosign.public_key_of(private_key)

    def answer(self, method: str, extra: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the signature and extra of AUTHENTICATE for the method and extra of CHALLENGE."""
        if method == "wampcra":
            return self._cra_signature(extra), {}
        if method in ("wamp-scram", "scram"):
            return self._scram_proof(method, extra)
        if method == "cryptosign":
            from serverwamp.protocol.auth import cryptosign

            return cryptosign.signed_challenge(self._private_key, extra["challenge"]), {}
        return self._ticket, {}

    def trusts(self, welcome: Mapping[str, Any]) -> bool:
        """Tell whether WELCOME has the server's proof, if the login method demands one."""
        if self._server_signature is None:
            return True
        told = welcome.get("authextra", {})
        return self._server_signature in (
            told.get("verifier", "").removeprefix("v="),
            told.get("scram_server_signature"),
        )

    def _cra_signature(self, extra: Mapping[str, Any]) -> str:
        key = self._secret
        if "salt" in extra:
            key = cra.derive_cra_secret(key, extra["salt"], extra["iterations"], extra["keylen"])
        return cra.cra_signature(key, extra["challenge"])

    def _scram_proof(self, method: str, extra: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        client_nonce, nonce = self.authextra["nonce"], extra["nonce"]
        is_autobahns = method == "scram"
        salted = scram.salted_password(
            self._password if is_autobahns else scram.saslprep(self._password),
            b64decode(extra["salt"]),
            "pbkdf2" if extra["kdf"] == "pbkdf2" else "argon2id13",
            extra["iterations"],
            extra.get("memory"),
        )
        said = (self._authid, client_nonce, nonce, extra["salt"], extra["iterations"])
        message = scram.auth_message(*said)
        if is_autobahns:
            salted = scram.autobahn_salted_password(salted)
            message = scram.autobahn_auth_message(*said)
        server_key = scram.server_key(salted)
        self._server_signature = scram.server_signature(server_key, message)
        told = {} if is_autobahns else {"nonce": nonce, "channel_binding": None, "cbind_data": None}
        return scram.client_proof(salted, message), told
