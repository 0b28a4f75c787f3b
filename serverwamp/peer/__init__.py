"""One client's session: how it begins and ends, and the client's roles in it."""
