"""A Python signature, compiled once: arguments in, results out."""
