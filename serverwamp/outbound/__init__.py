"""What waits for one client, and what sends it."""
