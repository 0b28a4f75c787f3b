"""Servers that don't speak ASGI, made to."""
