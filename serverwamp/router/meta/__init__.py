"""What clients may ask about a realm, and which events tell them of it."""
