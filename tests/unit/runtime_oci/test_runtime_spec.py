"""The OCI spec of a container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import Conflict, InvalidParameter, NotFound
from plugin_sdk.containers import (
    ContainerConfig,
    ContainerRecord,
    ContainerState,
    ContainerStatus,
    ExecSpec,
    HostConfig,
    Preparation,
)
from plugin_sdk.runtime import OciMount, OciSpec
from plugins.runtime_oci import process
from plugins.runtime_oci.spec import SpecDefaults, build

ID = "a" * 64


def record(host: dict[str, Any] | None = None, **config: Any) -> ContainerRecord:
    path, *args = config.pop("command", ["sleep", "1"])
    return ContainerRecord(
        Id=ID,
        Name="c",
        Created="",
        ImageID="",
        ImageRef="",
        Driver="x",
        Runtime="crun",
        Path=path,
        Args=args,
        Config=ContainerConfig(**config),
        HostConfig=HostConfig(**{"IpcMode": "private", "CgroupnsMode": "host", **(host or {})}),
    )


def donor(running: bool = True, **host: Any) -> ContainerRecord:
    status = ContainerStatus.RUNNING if running else ContainerStatus.EXITED
    return record(host).model_copy(
        update={"Id": "d" * 64, "State": ContainerState(Status=status, Pid=4242 if running else 0)}
    )


def spec_of(
    tmp_path: Path,
    container: ContainerRecord,
    defaults: SpecDefaults | None = None,
    others: dict[str, ContainerRecord] | None = None,
    **preparation: Any,
) -> OciSpec:
    def find(ref: str) -> ContainerRecord:
        try:
            return (others or {})[ref]
        except KeyError:
            raise NotFound(f"No such container: {ref}") from None

    (tmp_path / "root/etc").mkdir(parents=True, exist_ok=True)
    (tmp_path / "root/etc/passwd").write_text("root:x:0:0::/root:\nbob:x:1000:1000::/home/bob:\n")
    prepared = Preparation(tmp_path, tmp_path / "root", **preparation)
    return build(container, prepared, defaults or SpecDefaults(shm=lambda key: tmp_path / "shm" / key), find)


def mounts_of(spec: OciSpec) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in spec["mounts"]}


def kinds_of(spec: OciSpec) -> dict[str, str]:
    return {namespace["type"]: namespace.get("path", "") for namespace in spec["linux"]["namespaces"]}


def test_defaults(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, record(Env=["A=b"]), netns=Path("/run/netns/x"))
    first = spec["process"]
    assert first["args"] == ["sleep", "1"]
    assert first["env"] == [process.DEFAULT_PATH, f"HOSTNAME={ID[:12]}", "A=b", "HOME=/root"]
    assert first["cwd"] == "/"
    assert len(first["capabilities"]["effective"]) == 14
    assert first["rlimits"] == []
    assert first["noNewPrivileges"] is False
    assert kinds_of(spec) == {"mount": "", "network": "/run/netns/x", "uts": "", "pid": "", "ipc": ""}
    assert spec["linux"]["cgroupsPath"] == f"/docker/{ID}"
    assert spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "/proc/kcore" in spec["linux"]["maskedPaths"]
    assert spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert "size=67108864" in mounts_of(spec)["/dev/shm"]["options"]
    assert "ro" in mounts_of(spec)["/sys"]["options"]


def test_without_a_namespace_of_its_own_the_hosts_network_is_used(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, record({"NetworkMode": "host"}))
    assert "network" not in kinds_of(spec)
    assert "sysctl" not in spec["linux"]


def test_privileged(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, record({"Privileged": True}))
    assert "seccomp" not in spec["linux"]
    assert "maskedPaths" not in spec["linux"]
    assert "rw" in mounts_of(spec)["/sys"]["options"]
    assert "rw" in mounts_of(spec)["/sys/fs/cgroup"]["options"]
    assert {"allow": True, "access": "rwm"} in spec["linux"]["resources"]["devices"]
    assert any(device["path"] == "/dev/null" for device in spec["linux"]["devices"])


def test_a_user_other_than_root_keeps_only_the_bounding_set(tmp_path: Path) -> None:
    first = spec_of(tmp_path, record(User="bob"))["process"]
    assert first["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000]}
    assert first["capabilities"]["effective"] == []
    assert len(first["capabilities"]["bounding"]) == 14
    assert "HOME=/home/bob" in first["env"]


def test_the_hosts_namespaces(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, record({"IpcMode": "host", "PidMode": "host", "UTSMode": "host"}))
    assert kinds_of(spec) == {"mount": ""}
    assert "hostname" not in spec
    assert mounts_of(spec)["/dev/shm"]["source"] == "/dev/shm"


def test_another_containers_namespaces(tmp_path: Path) -> None:
    others = {"other": donor(IpcMode="shareable")}
    spec = spec_of(tmp_path, record({"IpcMode": "container:other", "PidMode": "container:other"}), others=others)
    assert kinds_of(spec)["pid"] == "/proc/4242/ns/pid"
    assert kinds_of(spec)["ipc"] == "/proc/4242/ns/ipc"
    assert mounts_of(spec)["/dev/shm"]["source"] == str(tmp_path / "shm" / ("d" * 64))


@pytest.mark.parametrize(
    ("host", "other", "error", "message"),
    [
        ({"PidMode": "container:x"}, None, NotFound, "No such container: x"),
        ({"PidMode": "container:x"}, donor(running=False), Conflict, "cannot join PID of a non running container"),
        ({"IpcMode": "container:x"}, donor(), Conflict, "non-shareable IPC"),
    ],
)
def test_containers_that_cannot_be_joined(
    tmp_path: Path, host: dict[str, Any], other: ContainerRecord | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        spec_of(tmp_path, record(host), others={"x": other} if other else {})


def test_no_ipc_no_shm(tmp_path: Path) -> None:
    assert "/dev/shm" not in mounts_of(spec_of(tmp_path, record({"IpcMode": "none"})))


def test_prepared_mounts_come_last_outer_before_inner(tmp_path: Path) -> None:
    prepared = [OciMount("/data/inner/", "/b"), OciMount("/data", "/a"), OciMount("/dev/shm", "/c")]
    spec = spec_of(tmp_path, record(), mounts=prepared)
    order = [mount["destination"] for mount in spec["mounts"]]
    assert order.index("/data") < order.index("/data/inner")
    assert order.count("/dev/shm") == 1
    assert mounts_of(spec)["/dev/shm"]["source"] == "/c"


def test_a_relative_destination_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="absolute"):
        spec_of(tmp_path, record(), mounts=[OciMount("data", "/a")])


@pytest.mark.parametrize(("options", "propagation"), [(("rbind", "rshared"), "shared"), (("bind", "slave"), "slave")])
def test_the_root_propagates_as_its_mounts_need(tmp_path: Path, options: tuple[str, ...], propagation: str) -> None:
    spec = spec_of(tmp_path, record(), mounts=[OciMount("/m", "/a", options=options)])
    assert spec["linux"]["rootfsPropagation"] == propagation


def test_init(tmp_path: Path) -> None:
    defaults = SpecDefaults(init=True, init_path=lambda: "/usr/bin/tini-static")
    spec = spec_of(tmp_path, record(), defaults)
    assert spec["process"]["args"] == ["/sbin/docker-init", "--", "sleep", "1"]
    assert mounts_of(spec)["/sbin/docker-init"]["source"] == "/usr/bin/tini-static"
    assert "/sbin/docker-init" not in mounts_of(spec_of(tmp_path, record({"Init": False}), defaults))
    assert "/sbin/docker-init" not in mounts_of(spec_of(tmp_path, record({"PidMode": "host"}), defaults))


def test_cgroup_paths(tmp_path: Path) -> None:
    assert spec_of(tmp_path, record({"CgroupParent": "/x"}))["linux"]["cgroupsPath"] == f"/x/{ID}"
    assert spec_of(tmp_path, record({"CgroupParent": "../../x/"}))["linux"]["cgroupsPath"] == f"/x/{ID}"
    systemd = SpecDefaults(systemd=True)
    assert spec_of(tmp_path, record(), systemd)["linux"]["cgroupsPath"] == f"system.slice:docker:{ID}"


def test_no_command(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="no command specified"):
        spec_of(tmp_path, record(command=[""]))


def test_the_daemons_defaults(tmp_path: Path) -> None:
    defaults = SpecDefaults(no_new_privileges=True, profile={})
    spec = spec_of(tmp_path, record(), defaults)
    assert spec["process"]["noNewPrivileges"] is True
    assert "seccomp" not in spec["linux"]
    asked = spec_of(tmp_path, record({"SecurityOpt": ["no-new-privileges=false"]}), defaults)
    assert asked["process"]["noNewPrivileges"] is False


def test_exec(tmp_path: Path) -> None:
    container = record(Env=["A=1", "B=2"], WorkingDir="/w")
    spec = spec_of(tmp_path, container)
    made = process.for_exec(
        spec, container, ExecSpec(["id"], env=["A=3", "C=4"], user="bob", tty=True), tmp_path / "root"
    )
    assert made["args"] == ["id"]
    assert made["cwd"] == "/w"
    assert made["user"]["uid"] == 1000
    assert made["capabilities"]["effective"] == []
    env = dict(entry.split("=", 1) for entry in made["env"])
    assert (env["A"], env["B"], env["C"], env["HOME"], env["TERM"]) == ("3", "2", "4", "/home/bob", "xterm")
    privileged = process.for_exec(spec, container, ExecSpec(["id"], privileged=True), tmp_path / "root")
    assert len(privileged["capabilities"]["effective"]) > 30
    assert process.for_exec(spec, container, ExecSpec(["id"]), tmp_path / "root")["user"] == spec["process"]["user"]


@pytest.mark.parametrize(
    ("own", "container_tty", "exec_tty", "expected"),
    [
        ([], True, True, "TERM=xterm"),
        ([], True, False, None),
        ([], False, True, "TERM=xterm"),
        ([], False, False, None),
        (["TERM=vt100"], False, True, "TERM=vt100"),
        (["TERM=vt100"], True, False, "TERM=vt100"),
    ],
)
def test_term_of_an_exec(
    tmp_path: Path, own: list[str], container_tty: bool, exec_tty: bool, expected: str | None
) -> None:
    container = record(Env=own, Tty=container_tty)
    made = process.for_exec(spec_of(tmp_path, container), container, ExecSpec(["id"], tty=exec_tty), tmp_path / "root")
    assert next((entry for entry in made["env"] if entry.startswith("TERM=")), None) == expected


def test_merging_environments() -> None:
    assert process.merge_env(["A=1", "B=2"], ["A=3", "B"], ["C="]) == ["A=3", "C="]
