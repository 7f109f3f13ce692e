"""What an engine holds of the machine: mounts, processes, links, firewall rules, network namespaces, control groups.

Everything is found from outside, by the engine's own folder, its network namespace and its containers' IDs, so that
several engines can be tested on one machine at the same time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")

STANDING = ("docker0", "eng-", "stage0")
"""Beginnings of the names of bridges of predefined networks: they outlive the daemon."""


def mounts(root: Path) -> list[str]:
    """Mount points below a folder, the deepest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].replace("\\040", " ")
        if point.startswith(f"{root}/"):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def processes(root: Path, netns: Path | None, ids: Iterable[str] = ()) -> dict[int, str]:
    """PID to command line of all processes that work for an engine: its own, its monitors, its containers'."""
    wanted = tuple(ids)
    namespace = netns.stat().st_ino if netns and netns.exists() else -1
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            inside = (entry / "ns/net").stat().st_ino == namespace
            group = (entry / "cgroup").read_text() if wanted else ""
        except OSError:
            continue  # it has ended meanwhile
        if inside or f"{root}/" in command or any(container in group for container in wanted):
            found[int(entry.name)] = command
    return found


def links(netns: Path) -> list[str]:
    """Network links in a namespace, the loopback left out."""
    shown = _inside(netns, ["ip", "-brief", "link"])
    return sorted(line.split()[0] for line in shown.splitlines() if line.split()[0] != "lo")


def published(netns: Path) -> list[str]:
    """What the firewall's maps still send to containers."""
    objects = json.loads(_inside(netns, ["nft", "--json", "list", "ruleset"]))["nftables"]
    maps = [item["map"] for item in objects if "map" in item]
    return [f"{entry['table']} {entry['name']}: {element}" for entry in maps for element in entry.get("elem", [])]


def cgroups(ids: Iterable[str]) -> list[str]:
    """Control groups whose name contains one of the containers' IDs."""
    wanted = tuple(ids)
    found = []
    for folder, names, _ in os.walk(CGROUPS):
        found += [f"{folder}/{name}" for name in names if any(container in name for container in wanted)]
    return found


def census(root: Path, netns: Path | None) -> dict[str, int]:
    """How many of each an engine holds now, for comparisons before and after."""
    counted = {
        "mounts": len(mounts(root)),
        "monitors": sum("conmon" in command for command in processes(root, netns).values()),
    }
    if netns:
        counted["links"] = len(links(netns))
        rules = _inside(netns, ["nft", "list", "ruleset"])
        counted["rules"] = len(rules.splitlines())
    return counted


def find(root: Path, netns: Path | None, ids: Iterable[str]) -> list[str]:
    """What is left of an engine that has stopped."""
    ids = tuple(ids)
    found = [f"process {pid}: {command}" for pid, command in processes(root, netns, ids).items()]
    found += [f"mount {point}" for point in mounts(root)]
    found += [f"control group {group}" for group in (cgroups(ids) if ids else [])]
    if netns and netns.exists():
        # As dockerd does, the engine leaves its default bridge and its firewall tables to the next start.
        found += [f"network link {name}" for name in links(netns) if not name.startswith(STANDING)]
        found += [f"firewall entry {entry}" for entry in published(netns)]
    return found


def clear(root: Path, netns: Path | None, ids: Iterable[str]) -> list[str]:
    """Remove by force what is left of an engine that has stopped, and tell what that was."""
    ids = tuple(ids)
    found = find(root, netns, ids)
    for pid in processes(root, netns, ids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for point in mounts(root):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    for group in sorted(cgroups(ids), key=len, reverse=True) if ids else []:
        with contextlib.suppress(OSError):
            Path(group).rmdir()
    return found


def remove_folder(root: Path) -> None:
    """Remove a folder with all below it, unless something is still mounted there."""
    if not mounts(root):
        shutil.rmtree(root, ignore_errors=True)


def _inside(netns: Path, argv: list[str]) -> str:
    done = subprocess.run(["nsenter", f"--net={netns}", *argv], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout
