"""The chat over four workers, nginx and Redis."""
