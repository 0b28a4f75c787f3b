"""How tasks start, what context they run in, and what happens at a signal."""
