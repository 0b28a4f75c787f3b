"""Starting and cancelling tasks, their contexts, and handling of signals."""
