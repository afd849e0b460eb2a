"""Runs that are killed: at a random moment, with SIGKILL, and resumed, until nothing tells them from an unbroken run.

`python -m tests.killing --moments 50`, in the repository's root; outside continuous integration, since every moment
costs the start of a process. `test_killing.py` kills three.
"""
