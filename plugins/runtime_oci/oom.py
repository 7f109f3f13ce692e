"""The kernel has killed a process for memory: told at once by the file that the monitor writes, or found afterwards."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

from plugins.runtime_oci import cgroups, watch
from plugins.runtime_oci.live import CONFIG_FILE
from plugins.runtime_oci.monitor import OOM_FILE

log = logging.getLogger("engine.runtime_oci")

Told = Callable[[], None]


class OomWatch:
    """Watches the bundles of containers with a limited memory, by one inotify descriptor that is opened when needed."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._told: dict[int, Told] = {}
        self._places: dict[str, int] = {}

    def expect(self, container_id: str, bundle: Path, told: Told) -> None:
        """Call `told` once, at the first kill; soon, if there was one already. From the event loop."""
        try:
            if self._descriptor < 0:
                self._descriptor = watch.open_inotify()
                asyncio.get_running_loop().add_reader(self._descriptor, self._readable)
            place = watch.add(self._descriptor, bundle, watch.IN_CREATE)
        except OSError as error:
            log.warning("container %s: its end alone will tell of killed processes: %s", container_id[:12], error)
            return
        self._told[place], self._places[container_id] = told, place
        if (bundle / OOM_FILE).exists():
            asyncio.get_running_loop().call_soon(self._tell, place)

    def forget(self, container_id: str) -> None:
        """Do not tell."""
        place = self._places.pop(container_id, None)
        if place is not None:
            self._told.pop(place, None)
            watch.remove(self._descriptor, place)

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._told.clear()
        self._places.clear()

    def _tell(self, place: int) -> None:
        if told := self._told.pop(place, None):
            told()

    def _readable(self) -> None:
        for place, mask, name in watch.read(self._descriptor):
            if mask & watch.IN_Q_OVERFLOW:
                log.warning("the kernel could not tell of all that happened: an end alone may tell of killed processes")
            elif name == OOM_FILE:
                self._tell(place)


def killed_in_cgroup(groups: cgroups.Cgroups, bundle: Path) -> bool:
    """What the container's control group says, as long as it is there. Blocking."""
    try:
        path = json.loads((bundle / CONFIG_FILE).read_bytes())["linux"].get("cgroupsPath", "")
    except (OSError, ValueError, KeyError):
        return False
    base = groups.unified if groups.v2 else groups.mounts.get("memory")
    if base is None or not path.startswith("/"):
        return False
    return cgroups.oom_killed(base / path.lstrip("/"), v2=groups.v2)
