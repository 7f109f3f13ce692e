"""What log drivers have in common: checks of `--log-opt`, the `tag` template, and labels and environment as attributes.

A driver's `validate` is mostly

    check_names(options, ("address", "tag", *ATTRIBUTES), "unknown log opt '{}' for my log driver")
    check_attributes(options)

and its `open` asks `log_tag(info)` and `extra_attributes(info)`. The engine itself calls `check_common`, for every driver.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kernel.contracts.logs import LogInfo
from kernel.errors import InvalidParameter

from .files import parse_size
from .gotemplate import Template

COMMON = ("mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
"""Options that any driver's user may give; the engine itself looks at them."""
ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex")
"""Options of drivers that send labels and environment along: see `extra_attributes`."""
DEFAULT_TAG = "{{.ID}}"

_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def check_names(options: Mapping[str, str], known: Collection[str], message: str) -> None:
    """Raises InvalidParameter; `message` has a `{}` for the option. Those of `COMMON` are always known."""
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
        size_option(options, "max-buffer-size", "error parsing option max-buffer-size: ")
    size_option(options, "cache-max-size")
    count_option(options, "cache-max-file")
    for name in ("cache-disabled", "cache-compress"):
        boolean_option(options, name)


def size_option(options: Mapping[str, str], name: str, before: str = "") -> int | None:
    """Bytes, 0 for `-1` (no bound), None when it is not given. Raises InvalidParameter, with `before` in front."""
    text = options.get(name)
    if text is None:
        return None
    if text == "-1":
        return 0
    try:
        size = parse_size(text)
    except InvalidParameter as error:
        raise InvalidParameter(f"{before}{error}") from None
    if size <= 0:
        raise InvalidParameter(f"{name} must be a positive number")
    return size


def count_option(options: Mapping[str, str], name: str) -> int | None:
    """A number from 1 on; None when it is not given. Raises InvalidParameter."""
    text = options.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise InvalidParameter(f'invalid value for {name}: {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 1:
        raise InvalidParameter(f"{name} cannot be less than 1")
    return int(text)


def boolean_option(options: Mapping[str, str], name: str, default: bool = False) -> bool:
    """`true`, `1`, `f` and so on. Raises InvalidParameter."""
    text = options.get(name)
    if text is None:
        return default
    if text.lower() not in _BOOLEANS:
        if name == "cache-disabled":
            raise InvalidParameter(f"invalid value for option {name}: {text}")
        raise InvalidParameter(f'error reading {name} log option: strconv.ParseBool: parsing "{text}": invalid syntax')
    return _BOOLEANS[text.lower()]


def check_attributes(options: Mapping[str, str]) -> None:
    """`labels-regex`, `env-regex` and `tag`. Raises InvalidParameter."""
    for name in ("labels-regex", "env-regex"):
        if options.get(name):
            try:
                re.compile(options[name])
            except re.error as error:
                raise InvalidParameter(f"error parsing regexp of {name}: {error}: `{options[name]}`") from None
    Template("log-tag", options.get("tag", ""), _TAG_FIELDS)


def log_tag(info: LogInfo, default: str = DEFAULT_TAG) -> str:
    """The option `tag`, or `default` when it is not given or empty, with its template filled in.

    Raises:
        InvalidParameter: the template does not fit this container.
    """
    text = info.options.get("tag", "") or default
    return Template("log-tag", text, _TAG_FIELDS).render(tag_data(info)) if "{{" in text else text


def tag_data(info: LogInfo) -> dict[str, Any]:
    """What a tag's template can ask for, by name."""
    return {name: value(info) for name, value in _TAG_FIELDS.items()}


def extra_attributes(info: LogInfo, rename: Callable[[str], str] = str) -> dict[str, str]:
    """What `labels`, `env` and their patterns choose among a container's labels and environment.

    Args:
        rename: gives the keys that the driver's receiver wants.
    """
    found: dict[str, str] = {}
    container, options = info.container, info.options
    for kind, have in (("labels", container.Config.Labels), ("env", container.env)):
        wanted = [name for name in options.get(kind, "").split(",") if name]
        pattern = options.get(f"{kind}-regex", "")
        found |= {rename(name): have[name] for name in wanted if name in have}
        if pattern:
            found |= {rename(name): value for name, value in have.items() if re.search(pattern, name)}
    return found


# The fields and methods of moby's daemon/logger.Info.
_TAG_FIELDS: dict[str, Callable[[LogInfo], Any]] = {
    "Config": lambda info: dict(info.options),
    "ContainerID": lambda info: info.container.Id,
    "ContainerName": lambda info: f"/{info.container.Name}",
    "ContainerEntrypoint": lambda info: info.container.Path,
    "ContainerArgs": lambda info: list(info.container.Args),
    "ContainerImageID": lambda info: info.container.ImageID,
    "ContainerImageName": lambda info: info.container.ImageRef,
    "ContainerCreated": lambda info: info.container.Created,
    "ContainerEnv": lambda info: list(info.container.Config.Env),
    "ContainerLabels": lambda info: dict(info.container.Config.Labels),
    "LogPath": lambda info: info.container.LogPath,
    "DaemonName": lambda info: info.daemon_name,
    "Command": lambda info: " ".join([info.container.Path, *info.container.Args]),
    "ExtraAttributes": lambda info: lambda rename=None: extra_attributes(info),
    "FullID": lambda info: info.container.Id,
    "Hostname": lambda info: socket.gethostname(),
    "ID": lambda info: info.container.Id[:12],
    "ImageFullID": lambda info: info.container.ImageID,
    "ImageID": lambda info: info.container.ImageID.removeprefix("sha256:")[:12],
    "ImageName": lambda info: info.container.ImageRef,
    "Name": lambda info: info.container.Name,
}
