"""The images of the scenarios, as one archive for `docker load`: the same bytes for both engines."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

PLAIN = "dt-busybox:latest"
RICH = "dt-rich:latest"
LABEL = "dt"
"""Label of both images, and so of each of their containers: those are removed after each scenario."""

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONFIGS: dict[str, dict[str, Any]] = {
    PLAIN: {"Env": [_PATH], "Cmd": ["sh"], "Labels": {LABEL: "1"}},
    RICH: {
        "Env": [_PATH, "COLOUR=red", "EMPTY="],
        "Entrypoint": ["/bin/echo", "entry"],
        "Cmd": ["default", "args"],
        "User": "www",
        "WorkingDir": "/srv/app",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/data": {}},
        "Labels": {LABEL: "1", "org.example.title": "rich"},
        "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 60_000_000_000, "Retries": 2},
        "OnBuild": ["RUN true"],
    },
}


def write_archive(rootfs: Path, target: Path) -> Path:
    """Write an archive of `docker save`'s form; `rootfs` is the one layer, a tar."""
    layer = rootfs.read_bytes()
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    entries: list[dict[str, Any]] = []
    with tarfile.open(target, "w") as tar:
        _add(tar, "layer.tar", layer)
        for name, config in _CONFIGS.items():
            document = {
                "architecture": "amd64",
                "os": "linux",
                "author": "tests",
                "created": "2024-01-02T03:04:05.000000006Z",
                "config": config,
                "history": [{"created": "2024-01-02T03:04:05.000000006Z", "created_by": "busybox", "comment": "base"}],
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            }
            raw = json.dumps(document).encode()
            file = f"{hashlib.sha256(raw).hexdigest()}.json"
            _add(tar, file, raw)
            entries.append({"Config": file, "RepoTags": [name], "Layers": ["layer.tar"]})
        _add(tar, "manifest.json", json.dumps(entries).encode())
    return target


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
