"""`--log-opt`: what the built-in drivers know, and what is true for every driver."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import ContainerRecord
from plugin_sdk.files import parse_size

COMMON = ("mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
"""Options that any driver's user may give; the engine itself looks at them."""

DEFAULT_SIZE = 20 << 20
DEFAULT_FILES = 5
UNLIMITED = 0

_FIELD = re.compile(r"\{\{(.*?)\}\}")
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


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


def check_names(options: Mapping[str, str], known: Collection[str], message: str) -> None:
    """Raises InvalidParameter; `message` has a `{}` for the option."""
    for option in options:
        if option not in known and option not in COMMON:
            raise InvalidParameter(message.format(option))


def check_common(options: Mapping[str, str]) -> None:
    """The options of `COMMON`. Raises InvalidParameter in dockerd's words."""
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidParameter("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        _size(options, "max-buffer-size", "error parsing option max-buffer-size: ")
    _size(options, "cache-max-size")
    _count(options, "cache-max-file")
    for name in ("cache-disabled", "cache-compress"):
        _boolean(options, name)


def limits(options: Mapping[str, str], *, prefix: str = "", default_files: int = 1) -> Limits:
    """`max-size`, `max-file` and `compress`. Raises InvalidParameter.

    Without `max-size`, the bound is 20 MB and, without `max-file`, five files; `max-size=-1` asks for no bound.

    Args:
        prefix: "cache-" for the options of the local copy.
        default_files: files when only `max-size` was given.
    """
    size = _size(options, f"{prefix}max-size")
    files = _count(options, f"{prefix}max-file")
    compress = _boolean(options, f"{prefix}compress")
    if files is None:
        files = DEFAULT_FILES if size is None else default_files
    if compress and (files < 2 or size == UNLIMITED):
        raise InvalidParameter("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Limits(DEFAULT_SIZE if size is None else size, files, compress)


def _size(options: Mapping[str, str], name: str, before: str = "") -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if text == "-1":
        return UNLIMITED
    try:
        size = parse_size(text)
    except InvalidParameter as error:
        raise InvalidParameter(f"{before}{error}") from None
    if size <= 0:
        raise InvalidParameter(f"{name} must be a positive number")
    return size


def _count(options: Mapping[str, str], name: str) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[+-]?\d+", text):
        raise InvalidParameter(f'{name}: "{text}" is no number')
    if int(text) < 1:
        raise InvalidParameter(f"{name} cannot be less than 1")
    return int(text)


def _boolean(options: Mapping[str, str], name: str) -> bool:
    text = options.get(name, "false")
    if text.lower() not in _BOOLEANS:
        raise InvalidParameter(f'error reading {name} log option: "{text}" is neither true nor false')
    return _BOOLEANS[text.lower()]


def check_attributes(options: Mapping[str, str]) -> None:
    """`labels-regex`, `env-regex` and `tag`. Raises InvalidParameter."""
    for name in ("labels-regex", "env-regex"):
        if options.get(name):
            try:
                re.compile(options[name])
            except re.error as error:
                raise InvalidParameter(f"error parsing regexp of {name}: {error}: `{options[name]}`") from None
    for found in _FIELD.finditer(options.get("tag", "")):
        name = found[1].strip().removeprefix(".")
        if name not in _TAG_FIELDS:
            raise InvalidParameter(f"tag: can't evaluate field {name}: known are {', '.join(sorted(_TAG_FIELDS))}")


_TAG_FIELDS: dict[str, Callable[[ContainerRecord], str]] = {
    "ID": lambda container: container.Id[:12],
    "FullID": lambda container: container.Id,
    "ContainerID": lambda container: container.Id,
    "Name": lambda container: container.Name,
    "ContainerName": lambda container: f"/{container.Name}",
    "ImageID": lambda container: container.ImageID.removeprefix("sha256:")[:12],
    "ImageFullID": lambda container: container.ImageID,
    "ContainerImageID": lambda container: container.ImageID,
    "ImageName": lambda container: container.ImageRef,
    "ContainerImageName": lambda container: container.ImageRef,
    "Command": lambda container: " ".join([container.Path, *container.Args]),
    "ContainerCreated": lambda container: container.Created,
    "DaemonName": lambda container: "docker",
}


def attributes(container: ContainerRecord, options: Mapping[str, str]) -> dict[str, str]:
    """What `labels`, `env`, their patterns and `tag` add to every line of a container's log."""
    found: dict[str, str] = {}
    for kind, have in (("labels", container.Config.Labels), ("env", container.env)):
        wanted = [name for name in options.get(kind, "").split(",") if name]
        pattern = options.get(f"{kind}-regex", "")
        found |= {name: have[name] for name in wanted if name in have}
        if pattern:
            found |= {name: value for name, value in have.items() if re.search(pattern, name)}
    if options.get("tag"):
        found["tag"] = _FIELD.sub(
            lambda match: _TAG_FIELDS[match[1].strip().removeprefix(".")](container), options["tag"]
        )
    return found
