"""Adapters that present other servers and transports as ASGI."""
