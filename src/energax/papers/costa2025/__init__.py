"""Directed equilibrium propagation with leakage, after the abstract of Costa & Santos 2025; all of it is our own."""

from energax.papers.costa2025 import alignment, connectome, digits, microcircuit, stability, xor

EXPERIMENTS = tuple(one.EXPERIMENT for one in (stability, alignment, xor, digits, connectome, microcircuit))
