"""Containers as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plugin_sdk.times import ago

_COMMAND_WIDTH = 20


def container_rows(found: Sequence[dict[str, Any]], *, no_trunc: bool, size: bool) -> list[list[str]]:
    """Header and rows from the items of `GET /containers/json`."""
    rows = [["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"] + (["SIZE"] if size else [])]
    for item in found:
        image, command = item["Image"], item["Command"]
        names = [name.removeprefix("/") for name in item["Names"]]
        if not no_trunc:
            image = image.removeprefix("sha256:")[:12] if image.startswith("sha256:") else image
            command = command if len(command) <= _COMMAND_WIDTH else command[: _COMMAND_WIDTH - 1] + "…"
        rows.append(
            [
                item["Id"] if no_trunc else item["Id"][:12],
                image,
                f'"{command}"',
                f"{ago(item['Created'] * 10**9)} ago",
                item["Status"],
                ", ".join(_port(port) for port in item["Ports"]),
                ",".join(name for name in names if no_trunc or "/" not in name),
            ]
            + ([_bytes(item.get("SizeRw", 0))] if size else [])
        )
    return rows


def _port(port: dict[str, Any]) -> str:
    inside = f"{port['PrivatePort']}/{port['Type']}"
    if "PublicPort" not in port:
        return inside
    address = f"[{port['IP']}]" if ":" in port["IP"] else port["IP"]
    return f"{address}:{port['PublicPort']}->{inside}"


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}TB"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns three spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
