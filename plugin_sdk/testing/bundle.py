"""Checks of a managed plugin's folder, before any engine has seen it: `config.json` and `rootfs/`. Blocking."""

from __future__ import annotations

import os
import platform
import stat
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel.errors import InvalidParameter
from kernel.managed import schema
from plugin_sdk.rootfs import open_in_root
from plugin_sdk.testing.kit import Broken, DoesNotApply, Outcome, Result

KIT = "managed plugin"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HEAD = 4096
_PT_INTERP = 3
_MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 22: "s390x", 21: "ppc64le"}
"""ELF machine to architecture, in the names of image platforms. Source: elf(5), `e_machine`."""
_HERE = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(slots=True)
class Bundle:
    """The folder, and what was read of it."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def rootfs(self) -> Path:
        """The root file system."""
        return self.folder / "rootfs"


def check(folder: Path) -> Iterator[Result]:
    """Each check's result, in order; ends with the first that does not hold, since the others build on it."""
    bundle = Bundle(folder)
    for claim, says, run in _CHECKS:
        began = time.monotonic()
        outcome, detail = Outcome.HOLDS, ""
        try:
            run(bundle)
        except DoesNotApply as reason:
            outcome, detail = Outcome.DOES_NOT_APPLY, str(reason)
        except (Broken, InvalidParameter) as broken:
            outcome, detail = Outcome.BROKEN, str(broken)
        except OSError as error:
            outcome, detail = Outcome.BROKEN, f"{error.filename or bundle.folder}: {error.strerror}"
        name = run.__name__.strip("_").replace("_", "-")
        spent = round(time.monotonic() - began, 3)
        yield Result(KIT, str(folder), name, claim, says, outcome, detail, spent)
        if outcome is Outcome.BROKEN:
            return


def _config(bundle: Bundle) -> None:
    raw = (bundle.folder / "config.json").read_bytes()
    if len(raw) > schema.MAX_BYTES:
        raise Broken(f"config.json of at most {schema.MAX_BYTES} bytes", len(raw))
    bundle.config = schema.parse(raw)


def _rootfs(bundle: Bundle) -> None:
    if bundle.rootfs.is_symlink() or not bundle.rootfs.is_dir():
        raise Broken(f"{bundle.rootfs} to be a folder", "none")
    if not os.listdir(bundle.rootfs):
        raise Broken(f"{bundle.rootfs} to hold the plugin's root file system", "an empty folder")


def _entrypoint(bundle: Bundle) -> None:
    program = str(bundle.config["Entrypoint"][0])
    for path in _candidates(bundle, program):
        try:
            descriptor = open_in_root(bundle.rootfs, path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode) or not mode & 0o111:
                raise Broken(f"{path} in rootfs to be an executable file", stat.filemode(mode))
            _runs_here(bundle, path, os.read(descriptor, _HEAD))
        finally:
            os.close(descriptor)
        return
    raise Broken(f"the program {program!r} in rootfs", "no such file")


def _candidates(bundle: Bundle, program: str) -> list[str]:
    if "/" in program:
        return [os.path.normpath(os.path.join(bundle.config["WorkDir"] or "/", program))]
    variables = {item["Name"]: item["Value"] for item in bundle.config["Env"]}
    return [os.path.join(part, program) for part in (variables.get("PATH") or DEFAULT_PATH).split(":")]


def _runs_here(bundle: Bundle, path: str, head: bytes) -> None:
    """What people meet as "no such file or directory": a script without its interpreter, a program without its loader."""
    if head.startswith(b"#!"):
        words = head[2:].partition(b"\n")[0].split()
        _must_hold(bundle, path, words[0].decode(errors="replace") if words else "")
        return
    if head[:4] != b"\x7fELF" or len(head) < 64 or head[5] != 1:
        raise Broken(f"{path} to be a program or a script", head[:16])
    machine = struct.unpack_from("<H", head, 18)[0]
    built, here = _MACHINES.get(machine, f"machine {machine}"), _HERE.get(platform.machine(), platform.machine())
    if built != here:
        raise DoesNotApply(f"{path} is built for {built}, and this is {here}")
    if head[4] != 2:
        return
    offset = struct.unpack_from("<Q", head, 32)[0]
    size, count = struct.unpack_from("<HH", head, 54)
    for number in range(count):
        at = offset + number * size
        if at + 56 > len(head):
            break
        kind, _, start = struct.unpack_from("<IIQ", head, at)
        if kind == _PT_INTERP and start < len(head):
            _must_hold(bundle, path, head[start:].partition(b"\0")[0].decode(errors="replace"))


def _must_hold(bundle: Bundle, path: str, needed: str) -> None:
    try:
        os.close(open_in_root(bundle.rootfs, needed))
    except OSError:
        raise Broken(
            f"rootfs to hold {needed or 'an interpreter'}, which {path} needs to run", "no such file"
        ) from None


def _interfaces(bundle: Bundle) -> None:
    if not bundle.config["Interface"]["Types"]:
        raise DoesNotApply("it implements no interface")


_CHECKS: tuple[tuple[str, str, Callable[[Bundle], None]], ...] = (
    ("config.json follows the schema", "Plugin Config Version 1 of Plugin V2: its fields.", _config),
    ("there is a root file system", "Plugin Config Version 1 of Plugin V2: rootfs.", _rootfs),
    ("the entrypoint can run in it", "Plugin Config Version 1 of Plugin V2: entrypoint.", _entrypoint),
    ("it implements an interface", "Plugin Config Version 1 of Plugin V2: interface.", _interfaces),
)
