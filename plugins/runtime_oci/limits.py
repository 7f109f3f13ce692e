"""Resource limits of the API as the OCI spec's `linux.resources`.

Source: OCI runtime spec, config-linux.md, "Control groups".
"""

from __future__ import annotations

from typing import Any

from plugin_sdk.containers import Resources
from plugin_sdk.containers import ThrottleDevice as Throttle
from plugin_sdk.containers import WeightDevice as Weight
from plugins.runtime_oci.devices import numbers

CFS_PERIOD = 100_000
"""Microseconds in which `NanoCpus` is measured."""


def oci_resources(asked: Resources) -> dict[str, Any]:
    """Only what was asked for. Blocking when block devices are named; raises InvalidParameter for those that are none."""
    found: dict[str, Any] = {}
    for section, values in (("memory", _memory(asked)), ("cpu", _cpu(asked)), ("blockIO", _block(asked))):
        if values:
            found[section] = values
    if asked.PidsLimit:
        found["pids"] = {"limit": asked.PidsLimit if asked.PidsLimit > 0 else -1}
    return found


def _memory(asked: Resources) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in (
        ("limit", asked.Memory),
        ("reservation", asked.MemoryReservation),
        ("swap", max(asked.MemorySwap, -1)),
    ):
        if value:
            found[name] = value
    if asked.KernelMemoryTCP:
        found["kernelTCP"] = asked.KernelMemoryTCP
    if asked.MemorySwappiness is not None and asked.MemorySwappiness != -1:
        found["swappiness"] = asked.MemorySwappiness
    if asked.OomKillDisable:
        found["disableOOMKiller"] = True
    return found


def _cpu(asked: Resources) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if asked.NanoCpus > 0:
        found |= {"period": CFS_PERIOD, "quota": asked.NanoCpus * CFS_PERIOD // 10**9}
    for name, value in (
        ("shares", asked.CpuShares),
        ("period", asked.CpuPeriod),
        ("quota", asked.CpuQuota),
        ("realtimePeriod", asked.CpuRealtimePeriod),
        ("realtimeRuntime", asked.CpuRealtimeRuntime),
        ("cpus", asked.CpusetCpus),
        ("mems", asked.CpusetMems),
    ):
        if value:
            found[name] = value
    return found


def _block(asked: Resources) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if asked.BlkioWeight:
        found["weight"] = asked.BlkioWeight
    if asked.BlkioWeightDevice:
        found["weightDevice"] = [_weight(device) for device in asked.BlkioWeightDevice]
    for name, devices in (
        ("throttleReadBpsDevice", asked.BlkioDeviceReadBps),
        ("throttleWriteBpsDevice", asked.BlkioDeviceWriteBps),
        ("throttleReadIOPSDevice", asked.BlkioDeviceReadIOps),
        ("throttleWriteIOPSDevice", asked.BlkioDeviceWriteIOps),
    ):
        if devices:
            found[name] = [_throttle(device) for device in devices]
    return found


def _weight(device: Weight) -> dict[str, int]:
    major, minor = numbers(device.Path)
    return {"major": major, "minor": minor, "weight": device.Weight}


def _throttle(device: Throttle) -> dict[str, int]:
    major, minor = numbers(device.Path)
    return {"major": major, "minor": minor, "rate": device.Rate}
