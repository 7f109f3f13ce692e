"""What a served driver's interface must know again after a restart of the plugin: one JSON document per interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kernel.errors import EngineError
from plugin_sdk.files import write_atomic


class Memory:
    """A document on disk, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = asyncio.Lock()

    def load(self) -> dict[str, Any]:
        """What was saved last, {} at first. Blocking. Raises EngineError for a file that cannot be read."""
        try:
            document = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise EngineError(f"{self._path} cannot be read: {error}") from None
        if not isinstance(document, dict):
            raise EngineError(f"{self._path} holds no object")
        return document

    async def save(self, document: Callable[[], Mapping[str, Any]]) -> None:
        """Keep what `document` gives when it is this save's turn. Durable when it returns."""
        async with self._turn:
            content = json.dumps(document()).encode()
            await asyncio.to_thread(self._write, content)

    def _write(self, content: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self._path, content)
