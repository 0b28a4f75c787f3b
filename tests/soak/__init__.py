"""What serverwamp holds after much coming and going, and under a crowd: ``python -m tests.soak``.

`application` is what is served, in a process of its own, and it counts what that process holds.
`cycles` are clients that come, do something, and vanish in the middle of it; `crowd` is thousands
of sessions, some of which never read. `counts` says what has to be flat.
"""
