"""The protocol itself, without I/O: no event loop, no transport, no clock."""
