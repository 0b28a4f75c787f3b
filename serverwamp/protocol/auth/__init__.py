"""The mathematics of the challenge-based login methods."""
