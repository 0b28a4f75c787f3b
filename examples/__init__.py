"""Runnable examples. The docstring of each says how to run it."""
