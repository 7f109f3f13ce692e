"""The contract of a quota back end."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class QuotaBackend(Protocol):
    """One way to limit what a writable layer can hold. Blocking; one layer is in one thread's hands at a time.

    `home` is the layer's folder. `fs` and `work` lie in `home / inner`.

    Attributes:
        name: is stored with each layer that it limits, and shown by info.
        inner: "" or one folder's name.
        least: the smallest size in bytes that makes sense.
    """

    name: str
    inner: str
    least: int

    def available(self, root: Path) -> str:
        """Whether layers below `root` can be limited: "" or why not and how to mend it, in a few words.

        Asked at each start: it is quick and changes nothing that lasts.
        """

    def begin(self, home: Path, size: int) -> None:
        """Set the limit on a new home, and make `home / inner`. Raises OSError or EngineError."""

    def finish(self, home: Path, size: int) -> None:
        """`fs` and `work` have been made."""

    def ready(self, home: Path) -> None:
        """See to it that `home / inner` shows the content: also after a boot of the machine. Idempotent."""

    def rest(self, home: Path) -> None:
        """Nobody uses the layer now. Idempotent."""

    def forget(self, home: Path) -> None:
        """The layer's files are about to be removed, also those of one that was only half made. Idempotent."""
