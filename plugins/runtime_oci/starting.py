"""Letting a created container run without another process of the runtime.

A container that crun created waits for one byte in `ROOT/ID/exec.fifo`, and counts as created while the FIFO exists:
`crun start` opens it, removes it and writes. Source: crun, status.c. For a FIFO that is not as expected, and for other
runtimes, the runtime's own `start` does it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from plugins.runtime_oci.binary import CRUN


def by_fifo(kind: str, root: Path, container_id: str) -> bool:
    """Start it; False when it has to be done by the runtime. Takes microseconds."""
    if kind != CRUN:
        return False
    path = root / container_id / "exec.fifo"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return False
        path.unlink()
        return os.write(descriptor, b"\0") == 1
    finally:
        os.close(descriptor)
