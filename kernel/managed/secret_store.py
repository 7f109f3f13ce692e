"""Secret settings of managed plugins: files that root alone reads, apart from the state that the API shows."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

FILE = "secrets.json"


def load(folder: Path) -> dict[str, str]:
    """Name to value. Blocking."""
    try:
        stored: dict[str, str] = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return {}
    return stored


def change(folder: Path, changes: Mapping[str, str | None]) -> list[str]:
    """Set and forget (None); gives the names that are set now. Blocking; the file is replaced as a whole."""
    values = {**load(folder), **changes}
    kept = {name: value for name, value in values.items() if value is not None}
    temporary = folder / f".{FILE}.{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(kept, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / FILE)
    return sorted(kept)
