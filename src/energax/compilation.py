"""Compiled programs of a process: how many it can hold."""

from pathlib import Path

import jax

MAPS, LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
SHARE = 0.7  # of the maps that are allowed: a training needs several hundred


def make_room() -> None:
    """Forget compiled programs where the memory maps of this process run short.

    Linux allows a process so many maps (65,530 unless set otherwise), every program takes several, and beyond them the
    compiler crashes the process. What is forgotten is compiled anew when it is used. Elsewhere than on Linux nothing
    is done.
    """
    if MAPS.exists() and LIMIT.exists() and MAPS.read_bytes().count(b"\n") > SHARE * int(LIMIT.read_text()):
        jax.clear_caches()
