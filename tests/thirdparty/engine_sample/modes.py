"""How each part of the plugin behaves now."""

from __future__ import annotations

import asyncio

PARTS = ("log", "volume", "route", "prepare")
MODES = ("ok", "raise", "hang", "rubbish")


class Modes:
    """The current mode of each part."""

    def __init__(self) -> None:
        self.current = dict.fromkeys(PARTS, "ok")
        self._changed = asyncio.Event()

    def set(self, part: str, mode: str) -> None:
        """Change a mode; what hangs in the old one goes on. Raises KeyError or ValueError."""
        if part not in self.current:
            raise KeyError(part)
        if mode not in MODES:
            raise ValueError(mode)
        self.current[part] = mode
        self._changed.set()
        self._changed = asyncio.Event()

    async def obey(self, part: str) -> bool:
        """Behave; gives True when the caller should answer rubbish."""
        mode = self.current[part]
        if mode == "raise":
            raise RuntimeError(f"sample: {part} was told to raise")
        while self.current[part] == "hang":
            await self._changed.wait()
        return mode == "rubbish"
