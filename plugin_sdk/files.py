"""Files that must be whole, and sizes as people write them."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from kernel.errors import InvalidParameter

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?$", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace a file as a whole: readers see the old content or the new. Blocking.

    Args:
        durable: also survive a power cut (fsync of file and folder).
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames within a folder durable. Blocking."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parse_size(text: str) -> int:
    """Bytes of `10m`, `1.5GB`, `4096`; units are powers of 1024. Raises InvalidParameter."""
    found = _SIZE.match(text.strip())
    if not found:
        raise InvalidParameter(f"invalid size: {text!r}")
    number, unit = found.groups()
    return int(float(number) * 1024 ** _POWER[unit.lower()])
