"""Containers to be logged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from plugin_sdk.containers import ContainerConfig, ContainerRecord, HostConfig
from plugin_sdk.logs import LogInfo


def make_info(options: dict[str, str], **config: object) -> LogInfo:
    """A container `web` of the image `reg/app:1` with these log options."""
    record = ContainerRecord(
        Id="ab" * 32,
        Name="web",
        Created="2026-01-01T00:00:00Z",
        ImageID="sha256:" + "cd" * 32,
        ImageRef="reg/app:1",
        Driver="overlay2",
        Runtime="crun",
        Path="sh",
        Args=["-c", "true"],
        Config=ContainerConfig(**config),
        HostConfig=HostConfig(),
    )
    return LogInfo(record, options, Path("/nowhere"))


@pytest.fixture
def info() -> Callable[..., LogInfo]:
    """`info(options, Labels=..., Env=...)`: see `make_info`."""
    return make_info
