"""How fast serverwamp is, beside a bare WebSocket server: ``python -m tests.benchmark``.

`applications` has what is measured, and runs it in processes of their own, which `servers` starts
and observes; `load` is the client side; `modes` says what is done; `report` says what came out.

Several processes that share a realm over Redis have a benchmark of their own, ``python -m
tests.benchmark.cluster``. `cluster_programs` is what its processes run.
"""
