"""How fast serverwamp is, beside a bare WebSocket server: ``python -m tests.benchmark``.

`applications` has what is measured, and runs it in processes of their own, which `servers` starts
and observes; `load` is the client side; `modes` says what is done; `report` says what came out.
"""
