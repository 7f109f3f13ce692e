"""Digests of content: `ALGORITHM:HEX`."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any

from plugin_sdk import InvalidParameter

_KNOWN = {"sha256": 64, "sha512": 128}
_SHAPE = re.compile(r"([a-z0-9]+(?:[.+_-][a-z0-9]+)*):([a-f0-9]+)")
_INLINE = 64 << 10
"""Bytes that are hashed sooner than a thread is woken."""


def check(digest: str) -> str:
    """A digest that can be verified; gives its algorithm. Raises InvalidParameter for others."""
    found = _SHAPE.fullmatch(digest)
    if found is None:
        raise InvalidParameter(f"invalid digest {digest[:200]!r}: want sha256:HEX")
    algorithm, hexadecimal = found.groups()
    if algorithm not in _KNOWN:
        raise InvalidParameter(f"unsupported digest algorithm {algorithm!r}: want {' or '.join(_KNOWN)}")
    if len(hexadecimal) != _KNOWN[algorithm]:
        raise InvalidParameter(f"invalid digest {digest[:200]!r}: want {_KNOWN[algorithm]} hexadecimal digits")
    return algorithm


class Digester:
    """Hashes a stream, in threads where it pays."""

    def __init__(self, algorithm: str = "sha256") -> None:
        self._algorithm = algorithm
        self._hash: Any = hashlib.new(algorithm)
        self.size = 0

    async def update(self, data: bytes) -> None:
        """Take more; in order, one at a time."""
        self.size += len(data)
        if len(data) <= _INLINE:
            self._hash.update(data)
            await asyncio.sleep(0)  # where source and sink never wait, others must get their turn here
        else:
            await asyncio.to_thread(self._hash.update, data)

    @property
    def digest(self) -> str:
        """Of all so far."""
        return f"{self._algorithm}:{self._hash.hexdigest()}"


async def of(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of bytes."""
    digester = Digester(algorithm)
    await digester.update(data)
    return digester.digest
