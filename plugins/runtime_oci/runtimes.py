"""Which runtimes there are: crun and runc where installed, and those that the daemon was told of."""

from __future__ import annotations

import shutil
from pathlib import Path

from plugin_sdk import InvalidParameter, SkipPlugin
from plugins.runtime_oci.binary import Binary
from plugins.runtime_oci.inits import find_init
from plugins.runtime_oci.settings import RuntimeSettings

BUILT_IN = ("crun", "runc")
ALIASES = {"io.containerd.runc.v2": "runc", "io.containerd.runtime.v1.linux": "runc"}
"""Names that clients take from dockerd, and what they mean here."""


def binaries(settings: RuntimeSettings, folder: Path) -> dict[str, Binary]:
    """Name to program, the default one's name first.

    "runc" is always among them, since clients repeat what another engine's `inspect` said: where runc is not
    installed, crun answers to it.

    Raises:
        SkipPlugin: no runtime at all.
        InvalidParameter: `--default-runtime` names none of them, or `--add-runtime` one of our own names.
    """
    found: dict[str, Binary] = {}
    for name in BUILT_IN:
        if path := shutil.which(name):
            found[name] = Binary(path, folder / name)
    for name, choice in settings.runtimes.items():
        if name in ALIASES or name.startswith("io.containerd."):
            raise InvalidParameter(f"runtime name {name!r} is reserved: choose another for --add-runtime")
        found[name] = Binary(choice.path, folder / name, choice.runtimeArgs)
    if not found:
        raise SkipPlugin("no OCI runtime is installed: install the package crun")
    default = settings.default_runtime or next(iter(found))
    default = ALIASES.get(default, default)
    if "runc" not in found and "crun" in found:
        found["runc"] = Binary(found["crun"].path, folder / "runc")
    if default not in found:
        raise InvalidParameter(f"specified default runtime '{default}' does not exist (there are: {', '.join(found)})")
    return {default: found.pop(default), **found}


class RuntimesService:
    """Fulfils `Runtimes`."""

    def __init__(self, default: str, init: str) -> None:
        self.default = default
        self._init = init

    def init_path(self) -> str:
        """See `Runtimes`."""
        return find_init(self._init)
