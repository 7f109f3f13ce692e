"""The last part of `-v source:destination:mode`, and the options of a tmpfs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import TmpfsMountOptions

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_GROUPS = (("rw", "ro"), ("z", "Z"), PROPAGATIONS, ("nocopy",), ("consistent", "cached", "delegated", "default"))

_TMPFS_FLAGS = (
    ("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("sync", "async"),
    ("dirsync",), ("remount",), ("mand", "nomand"), ("noatime", "atime"), ("nodiratime", "diratime"),
    ("bind", "rbind"), ("unbindable", "runbindable", *PROPAGATIONS), ("relatime", "norelatime"),
    ("strictatime", "nostrictatime"), ("defaults",),
)  # fmt: skip
_TMPFS_VALUES = ("mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "size", "huge")
TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")


def check_mode(mode: str) -> set[str]:
    """The words of a mode. Raises InvalidParameter (`invalid mode: x`) for unknown words and two of one kind."""
    words = mode.split(",") if mode else []
    for word in words:
        if not any(word in group for group in _GROUPS):
            raise InvalidParameter(f"invalid mode: {mode}")
    if any(sum(word in group for word in words) > 1 for group in _GROUPS):
        raise InvalidParameter(f"invalid mode: {mode}")
    return set(words)


def valid_mode(mode: str) -> bool:
    """`check_mode` would not raise."""
    try:
        check_mode(mode)
    except InvalidParameter:
        return False
    return bool(mode)


def tmpfs_options(words: Sequence[str]) -> tuple[str, ...]:
    """Options of a tmpfs: the defaults, overridden by what the user said; the last of contradicting words wins.

    Raises InvalidParameter (`invalid tmpfs option "x"`).
    """
    chosen: dict[object, str] = {}
    for word in (*TMPFS_DEFAULTS, *words):
        if not word:
            continue
        name, equals, _ = word.partition("=")
        if equals and name in _TMPFS_VALUES:
            chosen[name] = word
            continue
        group = next((group for group in _TMPFS_FLAGS if word in group), None)
        if group is None:
            raise InvalidParameter(f'invalid tmpfs option "{word}"')
        chosen[group] = word
    return tuple(word for word in chosen.values() if word != "defaults")


def tmpfs_words(options: TmpfsMountOptions, *, read_only: bool) -> list[str]:
    """What `TmpfsOptions` of a mount says, as words. Raises InvalidParameter."""
    words = ["ro"] if read_only else []
    if options.SizeBytes < 0:
        raise InvalidParameter("size must not be negative")
    if options.SizeBytes:
        words.append(f"size={options.SizeBytes}")
    if options.Mode:
        if not 0 < options.Mode <= 0o7777:
            raise InvalidParameter(f"invalid tmpfs mode: {options.Mode:o}")
        words.append(f"mode={options.Mode:o}")
    for option in options.Options:
        if not 1 <= len(option) <= 2:
            raise InvalidParameter("invalid option array length: want 1 or 2 elements")
        words.append("=".join(option))
    for word in words:
        if "," in word or re.search(r"[\0\n]", word):
            raise InvalidParameter(f'invalid tmpfs option "{word}"')
    return words
