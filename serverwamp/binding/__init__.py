"""Binds messages to Python functions: arguments to parameters, return values to results."""
