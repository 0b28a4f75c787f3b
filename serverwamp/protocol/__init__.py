"""The WAMP protocol without I/O: it uses no event loop, no transport and no clock."""
