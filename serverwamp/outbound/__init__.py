"""The queue of messages for one client, and their sending."""
