"""Serving connections: the handshake, the frames, and the sessions of a connection."""
