"""Reading files below a folder that somebody else fills."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from plugin_sdk.rootfs import open_in_root


def read_in(root: Path | str, path: str, limit: int = 4 << 20) -> str:
    """A regular file's text, at most `limit` bytes; "" when there is none. Never waits for a FIFO or a device. Blocking."""
    try:
        descriptor = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(limit).decode(errors="replace")
