"""A managed plugin for tests that is one static program: see `answering.c`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("answering.c")


def make_answering(folder: Path, interface: str) -> Path:
    """A folder for `docker plugin create` with a plugin of that interface type, for example "docker.authz/1.0"."""
    program = folder / "rootfs/plugin"
    program.parent.mkdir(parents=True)
    subprocess.run(["gcc", "-static", "-O1", "-D_GNU_SOURCE", "-o", program, SOURCE], check=True, timeout=60)
    config = {
        "description": "answers",
        "entrypoint": ["/plugin"],
        "interface": {"types": [interface], "socket": "p.sock"},
        "network": {"type": "none"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
