"""One client's session, by the roles that WAMP gives a client."""
