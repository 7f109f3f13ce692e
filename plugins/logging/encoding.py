"""The monitor's lines as json-file's, in as few passes over as much text at once as possible.

The monitor stamps what one read of a pipe gave it, so lines come in runs with the very same prefix, some eighty for a fast
writer. In a line there is no line end; so a line end and that prefix behind it is a line's beginning wherever it stands,
whatever the container writes. One `replace` converts a run.
"""

from __future__ import annotations

from .batch import HEADS_FULL, PREFIX, join_pieces, may_have_pieces, split_lines, utc

_CONTROLS = bytes(code for code in range(0x20) if code != 0x0A)
_ESCAPES = {b"\t": b"\\t", b"\r": b"\\r", b"\b": b"\\b", b"\f": b"\\f"}
_OPEN = b'{"log":"'
_REACH = 32 << 10
"""Bytes within which the end of a run is looked for at once."""
_WORTH = 8
"""Lines that a run must have on average; with fewer, lines are converted one by one."""


def encode(block: bytes, extra: bytes) -> bytes:
    """Whole lines of the monitor's format as json-file's; what is no such line is dropped.

    Args:
        extra: JSON that goes behind `"stream"`, beginning with its comma.
    """
    if not may_have_pieces(block):
        found = _by_runs(_escaped(block), extra)
        if found is not None:
            return found
    # Escaped behind the joining: what is a piece's size there is a size of text.
    lines = _escaped(b"\n".join([*join_pieces(split_lines(block)), b""])).split(b"\n")
    lines.pop()
    tails = {prefix: _tail(prefix, extra) for prefix in {line[:PREFIX] for line in lines}}
    return b"".join([_OPEN + line[PREFIX:] + tails[line[:PREFIX]] for line in lines])


def _by_runs(block: bytes, extra: bytes) -> bytes | None:
    """None when there are no runs to speak of, or lines that need a closer look."""
    out: list[bytes] = []
    at, runs, lines = 0, 0, 0
    while at < len(block):
        prefix = block[at : at + PREFIX]
        if prefix[35:] not in HEADS_FULL or b"\n" in prefix:
            return None
        limit = block.find(b"\n", min(at + _REACH, len(block) - 1)) + 1
        texts = block[at + PREFIX : limit].split(b"\n" + prefix)
        # The last one has all behind it that does not begin alike.
        last = texts[-1]
        end = last.index(b"\n")
        texts[-1] = last[:end]
        tail = _tail(prefix, extra)
        rows = (tail + _OPEN).join(texts)
        if rows.count(b"\n") != len(texts) - 1:
            # Lines of another time or stream lie between.
            return None
        out += (_OPEN, rows, tail)
        at = limit - len(last) + end + 1
        runs, lines = runs + 1, lines + len(texts)
        if runs % _WORTH == 0 and lines < runs * _WORTH:
            return None
    return b"".join(out)


def _tail(prefix: bytes, extra: bytes) -> bytes:
    end = b'\\n"' if prefix[43:44] == b"F" else b'"'
    try:
        stamp = utc(prefix[:35])
    except ValueError:
        stamp = b"1970-01-01T00:00:00.000000000"
    return end + b',"stream":"' + prefix[36:42] + b'"' + extra + b',"time":"' + stamp + b'Z"}\n'


def _escaped(text: bytes) -> bytes:
    """As in a JSON string, but for line ends, which stay; no prefix of the monitor's has anything to escape."""
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            text = text.decode(errors="replace").encode()
    for plain, escape in ((b"\\", b"\\\\"), (b'"', b'\\"')):
        if plain in text:
            text = text.replace(plain, escape)
    if len(text.translate(None, _CONTROLS)) != len(text):
        for plain, escape in _ESCAPES.items():
            text = text.replace(plain, escape)
        for code in _CONTROLS:
            text = text.replace(bytes([code]), b"\\u%04x" % code)
    return text
