"""All logins: a cookie, a ticket, and secrets and keys that never leave the client.

Run it, with ``serverwamp[server,crypto]``::

    uvicorn examples.authentication:wamp

Join any realm at ws://127.0.0.1:8000/, and call ``who.am_i``. These clients are admitted:

- by cookie: clients with the cookie ``visit=4711``
- by ticket: authid ``robot`` with the ticket ``oil-can``
- by WAMP-CRA: authid ``ada`` with the secret ``engine``
- by salted WAMP-CRA: authid ``grace`` with the password ``compiler``
- by SCRAM: authid ``hedy`` with the password ``frequency``
- by cryptosign: clients with the private key that is 64 times the digit ``7``
"""

from dataclasses import dataclass
from hmac import compare_digest
from secrets import token_urlsafe

import serverwamp
from serverwamp import (
    CRAAuthRequirement,
    CryptosignAuthRequirement,
    SCRAMAuthRequirement,
    Session,
)


@dataclass(frozen=True)
class User:
    name: str


wamp = serverwamp.Application()

# ---- cookie: checked first, because it needs no further message from the client

VISITS = {"4711": User("Visitor of the website")}


async def user_of_cookie(session: Session) -> User | None:
    cookies = session.connection.transport_info["http_cookies"]
    return VISITS.get(cookies.get("visit", ""))


wamp.add_transport_authenticator(user_of_cookie)

# ---- ticket: the client sends its secret, so the connection should be encrypted

TICKETS = {"robot": "oil-can"}
NOBODYS = token_urlsafe()  # compared for unknown names, so that timing doesn't reveal them


async def user_of_ticket(session: Session, ticket: str) -> User | None:
    expected = TICKETS.get(session.auth_id or "", NOBODYS)
    return User("Robot") if compare_digest(ticket.encode(), expected.encode()) else None


wamp.set_ticket_authenticator(user_of_ticket)

# ---- challenge and response: the client proves that it knows a secret

SECRETS = {
    "ada": CRAAuthRequirement("engine"),
    # Instead of a password, a key that is derived from it can be stored. The salt isn't secret, but
    # should be random for each user.
    "grace": CRAAuthRequirement(
        serverwamp.derive_cra_secret("compiler", salt="b2f1a9", iterations=10_000),
        salt="b2f1a9",
        iterations=10_000,
        auth_role="admin",
    ),
}


async def secret_of(session: Session) -> CRAAuthRequirement | None:
    return SECRETS.get(session.auth_id or "")


async def user_of_secret(session: Session) -> User:
    """Return the user. It is called only after the client has proved that it knows the secret."""
    return User(str(session.auth_id).title())


wamp.set_cra_handlers(secret_of, user_of_secret)

# ---- SCRAM: nobody can log in with the stored data, and the server proves its identity as well

PASSWORDS = {
    "hedy": SCRAMAuthRequirement(**serverwamp.scram_credential("frequency")),
}


async def password_of(session: Session) -> SCRAMAuthRequirement | None:
    return PASSWORDS.get(session.auth_id or "")


wamp.set_scram_handlers(password_of, user_of_secret)

# ---- cryptosign: the client has a private key, and the server knows only the public key

KEYS = {
    "sensor": CryptosignAuthRequirement(
        **serverwamp.cryptosign_credential("7" * 64), auth_role="device"
    ),
}
OWNERS = {requirement.public_key: name for name, requirement in KEYS.items()}


async def key_of(session: Session) -> CryptosignAuthRequirement | None:
    if session.auth_id is None:  # a device needn't send its name
        session.auth_id = OWNERS.get(session.auth_extra.get("pubkey"))
    return KEYS.get(session.auth_id or "")


wamp.set_cryptosign_handlers(key_of, user_of_secret)

# ---- a call: every session that gets here has an identity


@wamp.route("who.am_i")
async def who_am_i(session: Session) -> dict[str, str | None]:
    user: User = session.identity
    return {"name": user.name, "role": session.auth_role, "method": session.auth_method}
