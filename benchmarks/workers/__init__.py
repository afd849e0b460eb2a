"""Workers: one process per system, asked over its standard input (`protocol.py`).

Files named `peer_*` are run as scripts by interpreters that have no energax; they import nothing but `protocol`, which
lies beside them, and the system that they measure.
"""
