"""`--log-opt` of the drivers that keep logs in files; what all drivers have in common is `plugin_sdk.logoptions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plugin_sdk import InvalidParameter
from plugin_sdk.logoptions import boolean_option, count_option, extra_attributes, log_tag, size_option
from plugin_sdk.logs import LogInfo

DEFAULT_SIZE = 20 << 20
DEFAULT_FILES = 5
UNLIMITED = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a log: bytes of one file (0: no bound), number of files, and whether old ones are compressed."""

    size: int = DEFAULT_SIZE
    files: int = DEFAULT_FILES
    compress: bool = False

    @property
    def total(self) -> int:
        """Bytes of all files; 0: no bound."""
        return self.size * self.files


def limits(options: Mapping[str, str], *, prefix: str = "", default_files: int = 1) -> Limits:
    """`max-size`, `max-file` and `compress`. Raises InvalidParameter.

    Without `max-size`, the bound is 20 MB and, without `max-file`, five files; `max-size=-1` asks for no bound.

    Args:
        prefix: "cache-" for the options of the local copy.
        default_files: files when only `max-size` was given.
    """
    size = size_option(options, f"{prefix}max-size")
    files = count_option(options, f"{prefix}max-file")
    compress = boolean_option(options, f"{prefix}compress")
    if files is None:
        files = DEFAULT_FILES if size is None else default_files
    if compress and (files < 2 or size == UNLIMITED):
        raise InvalidParameter("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Limits(DEFAULT_SIZE if size is None else size, files, compress)


def attributes(info: LogInfo) -> dict[str, str]:
    """What `labels`, `env`, their patterns and `tag` add to every line of a container's log."""
    found = extra_attributes(info)
    if info.options.get("tag"):
        found["tag"] = log_tag(info)
    return found
