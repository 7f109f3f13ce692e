"""A tar on disk as a table of its files: what `docker load` gets. Blocking."""

from __future__ import annotations

import json
import os
import posixpath
import tarfile
from typing import Any, BinaryIO

from plugin_sdk import InvalidParameter

MAX_MEMBERS = 100_000
MAX_DOCUMENT = 16 << 20
"""Bytes of a JSON document that are accepted."""


class Section:
    """A part of a file, as a file of its own. `position` tells how much has been read."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self.size = size
        self.position = 0

    def read(self, size: int = -1, /) -> bytes:
        """As of files. Raises InvalidParameter when the file ends before the section."""
        left = self.size - self.position
        size = left if size < 0 else min(size, left)
        data = os.pread(self._descriptor, size, self._offset + self.position)
        if size and not data:
            raise InvalidParameter("unexpected EOF in the archive")
        self.position += len(data)
        return data


class Archive:
    """An uncompressed tar in a real file, which must stay open."""

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._index(file)

    def _index(self, file: BinaryIO) -> None:
        try:
            with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                    name = posixpath.normpath(member.name).lstrip("/")
                    if member.isreg() and not member.issparse():
                        self._files[name] = (member.offset_data, member.size)
                    elif member.issym() or member.islnk():
                        base = posixpath.dirname(name) if member.issym() else ""
                        self._links[name] = posixpath.normpath(posixpath.join(base, member.linkname)).lstrip("/")
                    if len(self._files) + len(self._links) > MAX_MEMBERS:
                        raise InvalidParameter(
                            f"the archive has more than {MAX_MEMBERS} members: it is no image archive"
                        )
        except tarfile.TarError as error:
            raise InvalidParameter(f"not an image archive: {error}") from None

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def _find(self, name: str) -> tuple[int, int] | None:
        name = posixpath.normpath(name)
        for _ in range(8):  # old archives share layers by symbolic links
            if name not in self._links:
                break
            name = self._links[name]
        return self._files.get(name)

    def open(self, name: str) -> Section:
        """A file of the archive. Raises InvalidParameter when it is not there."""
        found = self._find(name)
        if found is None:
            raise InvalidParameter(f"invalid archive: it does not contain {name!r}")
        return Section(self._descriptor, *found)

    def document(self, name: str) -> bytes:
        """A small file's content. Raises InvalidParameter."""
        section = self.open(name)
        if section.size > MAX_DOCUMENT:
            raise InvalidParameter(f"invalid archive: {name!r} is larger than {MAX_DOCUMENT} bytes")
        content = b""
        while piece := section.read():
            content += piece
        return content

    def json(self, name: str) -> Any:
        """A JSON document. Raises InvalidParameter."""
        try:
            return json.loads(self.document(name))
        except ValueError as error:
            raise InvalidParameter(f"invalid archive: {name!r} is not JSON: {error}") from None
