"""Advice on the memory allocator for fits on a CPU.

glibc's keeps gaps between tensors of different lengths, and the gaps grow with the steps; jemalloc's do not
(docs/speed.md, "Memory"). A program cannot change its allocator after it has begun.
"""

import platform
import re
from pathlib import Path

OTHERS = re.compile(r"/lib(jemalloc|tcmalloc|mimalloc)[^/]*$", re.MULTILINE)
LINE = (
    "less memory in a long fit on a CPU: LD_PRELOAD=libjemalloc.so.2 before the command (Debian's package libjemalloc2)"
)


def allocator_advice(maps: Path = Path("/proc/self/maps")) -> str | None:
    """Return a line of advice; None unless this process allocates by glibc.

    maps: a file in the format of proc(5) with the libraries of the process
    """
    if platform.libc_ver()[0] != "glibc" or not maps.is_file():
        return None
    return None if OTHERS.search(maps.read_text(encoding="utf-8", errors="replace")) else LINE
