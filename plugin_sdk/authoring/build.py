"""A Python project as a managed plugin: config.json and rootfs/.

The root file system holds the running interpreter, the SDK, the project and what it depends on, and nothing of a distribution: no
shell, no package manager. The same input gives the same tree: times, modes and bytecode included.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kernel.errors import Conflict, EngineError, InvalidParameter
from kernel.managed import schema
from plugin_sdk.authoring import distributions, interpreter
from plugin_sdk.authoring.project import Project, field, read, with_field

LIBRARY = "plugin/lib"
PROGRAM = "plugin/main.py"
SOCKET = "plugin.sock"
EPOCH = 315532800
"""Time of all files, unless SOURCE_DATE_EPOCH says otherwise: the beginning of 1980, the first that zip knows."""
_SECONDS = 300

_FOLDERS = ("dev", "etc", "proc", "run/docker/plugins", "run/docker/logging", "sys", "var/lib/plugin", "var/tmp")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # The engine lays its own over them.
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/resolv.conf": "",
}
_TELL_TYPES = """\
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
from plugin_sdk.serving import interface_types
types = []
for name in sys.argv[2:]:
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, type):
        sys.exit(f"{name} is no class")
    types += interface_types(found)
print(json.dumps(types))
"""
_COMPILE = """\
import compileall, py_compile, sys
compileall.compile_dir(
    sys.argv[1], quiet=1, stripdir=sys.argv[2], prependdir="/", invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
)
"""


def build(folder: Path, out: Path) -> list[str]:
    """Build a project into `out`; gives the interface types.

    Args:
        out: made, or replaced when it is a plugin that was built before.

    Raises:
        EngineError: see `project.read`, `distributions` and `interpreter`; Conflict: `out` holds something else.
    """
    project = read(folder)
    with staged(out) as stage:
        rootfs = stage / "rootfs"
        library = rootfs / LIBRARY
        library.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix="engine-build-") as scratch:
            distributions.install_project(folder.resolve(), project.dependencies, library, Path(scratch), out.resolve())
        distributions.copy_sdk(library)
        types = field(field(project.config, "interface", {}), "types", None) or _types(project, library)
        config = _config(project, types)
        write_config(stage, config)
        interpreter.copy(rootfs)
        interpreter.copy_libraries(rootfs)
        interpreter.copy_certificates(rootfs)
        socket = str(field(config["interface"], "socket", SOCKET))
        (rootfs / PROGRAM).write_text(_program(project, socket))
        furnish(rootfs, config)
        _compile(rootfs)
        settle(stage)
    return list(types)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place at the end. Raises Conflict when `out` is no plugin."""
    if out.exists() and not ({"config.json", "rootfs"} >= {path.name for path in out.iterdir()}):
        raise Conflict(f"{out} holds something else than a plugin: give another folder with -o")
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield stage
        stage.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        stage.rename(out)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def _types(project: Project, library: Path) -> list[str]:
    """Asked of the classes as they are in the plugin: what they import must be there, too."""
    # Without site: nothing of this environment may help.
    command = [sys.executable, "-BIS", "-c", _TELL_TYPES, str(library), *project.drivers]
    done = _run(command, f"{', '.join(project.drivers)} cannot be imported")
    types: list[str] = json.loads(done.splitlines()[-1])
    return types


def _config(project: Project, types: list[str]) -> dict[str, Any]:
    interface = with_field(field(project.config, "interface", {}), "types", types)
    interface.setdefault("socket", field(interface, "socket", SOCKET))
    config = with_field(project.config, "interface", interface)
    if not field(config, "description", ""):
        config = with_field(config, "description", project.description)
    if field(config, "entrypoint", None):
        raise InvalidParameter(
            "config.json: entrypoint is for `build` to say; name a function: tool.engine.plugin.main"
        )
    return with_field(config, "entrypoint", [interpreter.PYTHON, "-Iu", f"/{PROGRAM}"])


def write_config(stage: Path, config: Mapping[str, Any]) -> None:
    """Check and write config.json. Raises InvalidParameter, with the field's path."""
    raw = json.dumps(config, indent=4).encode() + b"\n"
    schema.parse(raw)
    (stage / "config.json").write_bytes(raw)


def _program(project: Project, socket: str) -> str:
    lines = ['"""What the plugin starts."""', "", "import os", "import sys", ""]
    lines += [f'sys.path.insert(0, "/{LIBRARY}")', f'os.environ.setdefault("ENGINE_PLUGIN_SOCKET", {socket!r})', ""]
    if project.main:
        module, _, name = project.main.partition(":")
        lines += [f"from {module} import {name} as main  # noqa: E402", "", "main()"]
    else:
        places = [text.split(":") for text in project.drivers]
        lines += ["from plugin_sdk import serve  # noqa: E402"]
        lines += [f"from {module} import {name} as driver_{n}  # noqa: E402" for n, (module, name) in enumerate(places)]
        lines += ["", f"serve({', '.join(f'driver_{n}()' for n in range(len(places)))})"]
    return "\n".join(lines) + "\n"


def furnish(rootfs: Path, config: Mapping[str, Any]) -> None:
    """What a process expects of a root file system, and the places of the config's mounts.

    What an image's links lead out of the root file system is left to the engine.
    """
    whole = rootfs.resolve()

    def inside(name: str) -> Path | None:
        path = rootfs / name.strip("/")
        return path if path.resolve().is_relative_to(whole) else None

    mounts = [str(field(mount, "destination", "")) for mount in field(config, "mounts", [])]
    for name in (*_FOLDERS, str(field(config, "propagatedmount", "")), *mounts):
        if (path := inside(name)) and not path.is_file():
            path.mkdir(parents=True, exist_ok=True)
    for name, content in _FILES.items():
        if (path := inside(name)) and not path.exists():
            path.write_text(content)
    for name, mode in (("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777)):
        if path := inside(name):
            path.mkdir(exist_ok=True)
            path.chmod(mode)


def _compile(rootfs: Path) -> None:
    for folder in (rootfs / interpreter.PREFIX / "lib", rootfs / LIBRARY):
        _run([sys.executable, "-I", "-c", _COMPILE, str(folder), str(rootfs)], "compiling failed")


def settle(stage: Path, *, modes: bool = True) -> None:
    """One time for all, and plain `modes`, so that the same content is the same tree."""
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))
    for path in sorted(stage.rglob("*"), reverse=True):
        if modes and not path.is_symlink():
            path.chmod(_plain(path))
        os.utime(path, (moment, moment), follow_symlinks=False)
    os.utime(stage, (moment, moment))


def _plain(path: Path) -> int:
    mode = path.stat().st_mode & 0o7777
    if path.is_file():
        return 0o755 if mode & 0o100 else 0o644
    return mode if mode in (0o700, 0o1777) else 0o755


def _run(command: list[str], failure: str) -> str:
    # A fixed seed: the order of a set shows in bytecode.
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(f"{failure}: no end after {_SECONDS} s") from None
    if done.returncode:
        raise EngineError(f"{failure}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
