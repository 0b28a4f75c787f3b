"""A connection: its handshake, its frames, and the sessions on it."""
