"""What a create request means depends on the API version that the client speaks."""

from __future__ import annotations

from plugin_sdk.containers import BindMountOptions, HostConfig, Mount
from plugins.containers.merge import for_version

ASKED = HostConfig(
    KernelMemory=1 << 20,
    ConsoleSize=[5, 6],
    Annotations={"a": "b"},
    Mounts=[
        Mount(
            Type="bind",
            BindOptions=BindMountOptions(NonRecursive=True, CreateMountpoint=True, ReadOnlyNonRecursive=True),
        ),
        Mount(Type="volume"),
    ],
)


def _bind(version: tuple[int, int]) -> set[str]:
    options = for_version(ASKED, version).Mounts[0].BindOptions
    assert options is not None
    return {name for name, value in options if value}


def test_defaults_of_their_time() -> None:
    old, later, new = (for_version(HostConfig(), version) for version in ((1, 39), (1, 40), (1, 41)))
    assert (old.IpcMode, old.CgroupnsMode) == ("shareable", "host")
    assert (later.IpcMode, later.CgroupnsMode) == ("", "host")
    assert (new.IpcMode, new.CgroupnsMode) == ("", "")
    assert for_version(HostConfig(IpcMode="none", CgroupnsMode="private"), (1, 25)).CgroupnsMode == "private"


def test_fields_that_they_did_not_have() -> None:
    before = for_version(ASKED, (1, 41))
    assert (before.ConsoleSize, before.KernelMemory, before.Annotations) == ([0, 0], 1 << 20, {})
    present = for_version(ASKED, (1, 51))
    assert (present.ConsoleSize, present.KernelMemory, present.Annotations) == ([5, 6], 0, {"a": "b"})


def test_options_of_binds() -> None:
    assert _bind((1, 39)) == set()
    assert _bind((1, 41)) == {"NonRecursive"}
    assert _bind((1, 43)) == {"NonRecursive", "CreateMountpoint"}
    assert _bind((1, 44)) == {"NonRecursive", "CreateMountpoint", "ReadOnlyNonRecursive"}
    assert for_version(ASKED, (1, 39)).Mounts[1] == ASKED.Mounts[1]
