"""Which machines a plugin is for: what its entrypoint's ELF header says.

Source: ELF(5), `e_machine`. A script, or an entrypoint that is looked for in $PATH, says nothing.
"""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from kernel.errors import NotSupported
from kernel.rootfs import open_in_root

if TYPE_CHECKING:
    from kernel.contracts.managed import ManagedPlugin
    from kernel.managed.layers import Layers

_HEADER = 20
_MACHINES = {
    3: "386",
    21: "ppc64le",
    22: "s390x",
    40: "arm",
    62: "amd64",
    183: "arm64",
    243: "riscv64",
    258: "loong64",
}
_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_ALSO = {("amd64", "386"), ("arm64", "arm")}
"""(this machine, what it runs too)."""


def host_platform() -> str:
    """ "linux/amd64"."""
    machine = platform.machine()
    return f"linux/{_NAMES.get(machine, machine)}"


def check(name: str, wanted: str) -> None:
    """Whether a plugin for the platform `wanted` can run here. Raises NotSupported, naming both."""
    here = host_platform()
    pair = (here.partition("/")[2], wanted.partition("/")[2])
    if wanted != here and pair not in _ALSO:
        raise NotSupported(f"plugin {name} is for {wanted}, and this machine is {here}")


async def of_entrypoint(layers: Layers, plugin: ManagedPlugin) -> str:
    """ "linux/arm64" of the program that the plugin starts; "" when it does not say."""
    program = plugin.Config["Entrypoint"][0]
    if not program.startswith("/"):
        return ""
    rootfs = await layers.mount(plugin)
    try:
        return await asyncio.to_thread(_of_file, rootfs, program)
    finally:
        await layers.unmount(plugin)


def _of_file(rootfs: Path, program: str) -> str:
    try:
        descriptor = open_in_root(rootfs, program, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""  # the start will say what is wrong with it
    with os.fdopen(descriptor, "rb") as file:
        head = file.read(_HEADER)
    if len(head) < _HEADER or not head.startswith(b"\x7fELF"):
        return ""
    number = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    return f"linux/{_MACHINES.get(number, f'machine-{number}')}"
