"""The meta API: WAMP's own procedures and topics, below ``wamp.``."""
