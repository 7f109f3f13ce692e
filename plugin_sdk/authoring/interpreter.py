"""The running Python interpreter, as a part of a root file system that needs nothing else."""

from __future__ import annotations

import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from kernel.errors import EngineError, NotSupported

PREFIX = "usr/local"
"""Where it goes: it finds its library from the place of its binary."""
PYTHON = f"/{PREFIX}/bin/python3"

_LEFT_OUT = (
    "__pycache__",
    "*.pyc",
    "*.a",
    "config-*",
    "dist-packages",
    "distutils",
    "ensurepip",
    "EXTERNALLY-MANAGED",
    "idlelib",
    "lib2to3",
    "nis.*",
    "pydoc_data",
    "site-packages",
    "sitecustomize.py",
    "test",
    "tests",
    "tkinter",
    "_tkinter*",
    "_test*.so",
    "_xxtestfuzz*",
    "turtle.py",
    "turtledemo",
    "xxlimited*",
)
_LOADED_LATER = ("libgcc_s.so.1",)
"""What no binary names: glibc opens it when a thread ends."""
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_RESOLVED = re.compile(r"\s*(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x")
_MISSING = re.compile(r"\s*(\S+) => not found")
_LDD_SECONDS = 120


def copy(rootfs: Path) -> None:
    """Binary and standard library. Raises NotSupported on systems other than Linux."""
    if sys.platform != "linux":
        raise NotSupported(
            f"plugins are built on Linux only, not on {platform.system()}: their interpreter is this one"
        )
    binary = Path(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = rootfs / PREFIX / "bin" / name
    target.parent.mkdir(parents=True)
    shutil.copyfile(binary, target)
    target.chmod(0o755)
    (rootfs / PYTHON.lstrip("/")).symlink_to(name)
    library = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix})
    shutil.copytree(library, rootfs / PREFIX / "lib" / name, ignore=shutil.ignore_patterns(*_LEFT_OUT))


def copy_libraries(rootfs: Path) -> None:
    """The loader and the shared libraries of all that is in the root file system, Python's modules in C included.

    Raises:
        NotSupported: this machine has no ldd, or lacks a library that something needs.
    """
    if shutil.which("ldd") is None:
        raise NotSupported("ldd is missing: it tells which shared libraries the interpreter needs")
    binaries = sorted(path for path in rootfs.rglob("*") if not path.is_symlink() and path.is_file() and _is_elf(path))
    found = dict(_needed(rootfs, binaries))
    place = next((Path(path).parent for name, path in sorted(found.items()) if name.startswith("libc.")), None)
    if place is None:
        return
    for name in _LOADED_LATER:
        if (place / name).exists():
            found.setdefault(name, str(place / name))
    for name, path in sorted(found.items()):
        # The loader has its fixed place; the others go where it looks without being told.
        target = rootfs / (path.lstrip("/") if name == path else str(place / name).lstrip("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copyfile(os.path.realpath(path), target)
            target.chmod(0o755)


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _needed(rootfs: Path, binaries: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Name and path of what the binaries need and do not bring along; of the loader the path twice."""
    if not binaries:
        return
    command = ["ldd", *map(str, binaries)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LD_")} | {"LC_ALL": "C"}
    try:
        # ldd fails for what is static, and goes on.
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_LDD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"ldd was still running after {_LDD_SECONDS} s") from None
    binary = str(binaries[0])
    for line in done.stdout.splitlines():
        if line.endswith(":") and not line.startswith((" ", "\t")):
            binary = line[:-1]
        elif missing := _MISSING.match(line):
            raise NotSupported(f"{Path(binary).name} needs {missing[1]}, which this machine lacks")
        elif (match := _RESOLVED.match(line)) and not Path(match["path"]).is_relative_to(rootfs):
            yield (match["name"] or match["path"]), match["path"]


def copy_certificates(rootfs: Path) -> None:
    """The certification authorities that this machine trusts, where the interpreter looks for them."""
    expected = ssl.get_default_verify_paths().openssl_cafile
    bundle = next((Path(path) for path in (*_BUNDLES, expected) if Path(path).is_file()), None)
    if bundle is None:
        return
    target = rootfs / _BUNDLES[0].lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bundle, target)
    link = rootfs / expected.lstrip("/")
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(_BUNDLES[0])
