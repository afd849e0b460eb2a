"""Mutation testing: faults are planted in the core one by one, and the tests must notice each.

`python -m tests.mutations --seed 0 --count 60`, in the repository's root; outside continuous integration, since every
mutant costs the run of a room's tests.
"""
