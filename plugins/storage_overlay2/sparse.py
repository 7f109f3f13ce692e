"""The four ways in which tars describe sparse files. Source: GNU tar manual, "Storing Sparse Files"."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from plugin_sdk import InvalidParameter

if TYPE_CHECKING:
    from .tarread import Member

MAX_PARTS = 1 << 20
BLOCK = 512

Parts = list[tuple[int, int]]
Take = Callable[[int], bytes]


def old_gnu(header: bytes, take: Take) -> tuple[Parts, int]:
    """(parts, real size) of a type "S" header; `take` reads the extension blocks."""
    try:
        parts = _entries(header[386:482])
        real = int(header[483:495].strip(b"\0 ") or b"0", 8)
        extended = header[482]
        while extended:
            block = take(BLOCK)
            parts += _entries(block[:504])
            extended = block[504]
            if len(parts) > MAX_PARTS:
                raise ValueError("too many parts")
    except ValueError as error:
        raise InvalidParameter(f"invalid sparse header: {error}") from None
    _check(parts, real)
    return parts, real


def _entries(data: bytes) -> Parts:
    found = []
    for at in range(0, len(data) - 23, 24):
        offset, length = data[at : at + 12].strip(b"\0 "), data[at + 12 : at + 24].strip(b"\0 ")
        if not offset and not length:
            break
        found.append((int(offset or b"0", 8), int(length or b"0", 8)))
    return found


def pax(member: Member, records: dict[bytes, bytes], take: Take) -> None:
    """Fill in a member from GNU.sparse.* records (0.0, 0.1 or 1.0). Raises ValueError or InvalidParameter."""
    member.name = records.get(b"GNU.sparse.name", member.name)
    if records.get(b"GNU.sparse.major") == b"1":
        real = int(records[b"GNU.sparse.realsize"]) if b"GNU.sparse.realsize" in records else member.size
        parts, used = _map_in_payload(take, member.stored)
        member.stored -= used
    elif b"GNU.sparse.map" in records:
        real = int(records.get(b"GNU.sparse.size", b"0"))
        numbers = [int(text) for text in records[b"GNU.sparse.map"].split(b",") if text]
        parts = list(zip(numbers[::2], numbers[1::2], strict=True))
    else:
        return
    _check(parts, real)
    if sum(length for _, length in parts) != member.stored:
        raise ValueError("the parts of a sparse file do not add up to its payload")
    member.holes, member.size = parts, real


def _map_in_payload(take: Take, limit: int) -> tuple[Parts, int]:
    data = bytearray()
    wanted = 1
    while True:
        lines = data.split(b"\n")
        if len(lines) > 1:
            count = int(lines[0])
            if not 0 <= count <= MAX_PARTS:
                raise ValueError("too many parts")
            wanted = 1 + 2 * count
        if len(lines) > wanted:
            numbers = [int(line) for line in lines[1:wanted]]
            return list(zip(numbers[::2], numbers[1::2], strict=True)), len(data)
        if len(data) >= limit:
            raise ValueError("the map of a sparse file does not end")
        data += take(BLOCK)


def _check(parts: Parts, real: int) -> None:
    end = 0
    for offset, length in parts:
        if offset < end or length < 0:
            raise InvalidParameter("invalid sparse header: parts overlap")
        end = offset + length
    if end > real:
        raise InvalidParameter("invalid sparse header: parts pass the end of the file")
