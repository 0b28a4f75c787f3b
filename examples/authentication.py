"""The ways in: a cookie, a ticket, and secrets and keys that never leave the client.

Run it, with ``serverwamp[server,crypto]``::

    uvicorn examples.authentication:wamp

Join any realm at ws://127.0.0.1:8000/, and call ``who.am_i``. These get in:

- by cookie: whoever the website has given ``visit=4711``
- by ticket: authid ``robot`` with the ticket ``oil-can``
- by WAMP-CRA: authid ``ada`` with the secret ``engine``
- by salted WAMP-CRA: authid ``grace`` with the password ``compiler``
- by SCRAM: authid ``hedy`` with the password ``frequency``
- by cryptosign: whoever has the private key that is 64 times the digit ``7``
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

# ---- cookie: asked first, because it needs nothing more from the client

VISITS = {"4711": User("Visitor of the website")}


async def user_of_cookie(session: Session) -> User | None:
    cookies = session.connection.transport_info["http_cookies"]
    return VISITS.get(cookies.get("visit", ""))


wamp.add_transport_authenticator(user_of_cookie)

# ---- ticket: the client sends its secret, so the connection had better be encrypted

TICKETS = {"robot": "oil-can"}
NOBODYS = token_urlsafe()  # compared with, too, when a name is unknown: nobody learns which are


async def user_of_ticket(session: Session, ticket: str) -> User | None:
    expected = TICKETS.get(session.auth_id or "", NOBODYS)
    return User("Robot") if compare_digest(ticket.encode(), expected.encode()) else None


wamp.set_ticket_authenticator(user_of_ticket)

# ---- challenge and response: the client proves that it knows a secret

SECRETS = {
    "ada": CRAAuthRequirement("engine"),
    # Of a person's password only what is derived from it has to be stored. The salt, which isn't
    # secret, should be random for each person.
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
    """Only called for who has proved to know the secret."""
    return User(str(session.auth_id).title())


wamp.set_cra_handlers(secret_of, user_of_secret)

# ---- SCRAM: of what is stored nobody can make a login, and the server proves itself, too

PASSWORDS = {
    "hedy": SCRAMAuthRequirement(**serverwamp.scram_credential("frequency")),
}


async def password_of(session: Session) -> SCRAMAuthRequirement | None:
    return PASSWORDS.get(session.auth_id or "")


wamp.set_scram_handlers(password_of, user_of_secret)

# ---- cryptosign: the client has a private key, of which the server only knows the public one

KEYS = {
    "sensor": CryptosignAuthRequirement(
        **serverwamp.cryptosign_credential("7" * 64), auth_role="device"
    ),
}
OWNERS = {requirement.public_key: name for name, requirement in KEYS.items()}


async def key_of(session: Session) -> CryptosignAuthRequirement | None:
    if session.auth_id is None:  # a device needn't know its name
        session.auth_id = OWNERS.get(session.auth_extra.get("pubkey"))
    return KEYS.get(session.auth_id or "")


wamp.set_cryptosign_handlers(key_of, user_of_secret)

# ---- whoever comes here is somebody


@wamp.route("who.am_i")
async def who_am_i(session: Session) -> dict[str, str | None]:
    user: User = session.identity
    return {"name": user.name, "role": session.auth_role, "method": session.auth_method}
