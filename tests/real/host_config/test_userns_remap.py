"""`--userns-remap`: root in a container is a subordinate ID on the host, and all the usual commands work."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Engine

pytestmark = pytest.mark.real

FIRST = 700_000


@pytest.fixture
def remapped(own_engine: Callable[..., Engine]) -> Iterator[Engine]:
    """An engine whose containers have the IDs from FIRST on, given to the user `daemon` of every Debian."""
    files = [Path("/etc/subuid"), Path("/etc/subgid")]
    before = {file: file.read_text() if file.exists() else None for file in files}
    for file, text in before.items():
        file.write_text(f"daemon:{FIRST}:65536\n{text or ''}")
    try:
        yield own_engine("--userns-remap=daemon")
    finally:
        for file, text in before.items():
            if text is None:
                file.unlink()
            else:
                file.write_text(text)


def test_files_and_commands(remapped: Engine, tmp_path: Path) -> None:
    docker, name, volume = remapped.docker, remapped.name(), remapped.name("vol")
    tmp_path.chmod(0o711)
    for folder in (tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o711)
    shared = tmp_path / "shared"
    options = ["-v", f"{volume}:/volume", "-v", f"{shared}:/shared", "-p", "80", "-w", "/work/dir"]
    sysctl = ["--sysctl", "net.ipv4.ip_forward=1", "--ipc", "shareable", "--cap-add", "NET_ADMIN"]
    docker("run", "-d", "--name", name, *options, *sysctl, "busybox", "sh", "-c",
           "echo hi > /index.html; touch /volume/f /shared/f; echo bob:x:1000:1000::/:/bin/sh >> /etc/passwd;"
           " chown 1000:1000 /volume/f; httpd -f -p 80 -h /")  # fmt: skip
    run = ["exec", name, "sh", "-c"]
    pid = remapped.inspect(name)["State"]["Pid"]
    assert os.stat(f"/proc/{pid}").st_uid == FIRST
    assert docker(*run, "id -u; cat /proc/self/uid_map").stdout.split() == ["0", "0", str(FIRST), "65536"]
    # The image's files and those made in the container are root's inside, whatever they are outside.
    assert (
        docker(*run, "stat -c %u:%g / /bin/busybox /index.html /etc/hosts /work/dir /dev/shm").stdout.split()
        == ["0:0"] * 6
    )
    assert docker(*run, "cat /proc/sys/net/ipv4/ip_forward; ip link set lo mtu 60000 && echo changed").stdout.split() == [
        "1", "changed",
    ]  # fmt: skip
    port = docker("port", name, "80").stdout.rpartition(":")[2].strip().split("\n")[0]
    assert remapped.fetch(f"http://127.0.0.1:{port}/index.html") == "hi\n"
    # On the host they are the subordinate root's, and user 1000 is 1000 further.
    data = Path(remapped.inspect(name)["Mounts"][0]["Source"])
    places = {mount["Destination"]: Path(mount["Source"]) for mount in remapped.inspect(name)["Mounts"]}
    assert (shared.stat().st_uid, (shared / "f").stat().st_uid) == (FIRST, FIRST)
    data = places["/volume"]
    assert (data.stat().st_uid, (data / "f").stat().st_uid) == (FIRST, FIRST + 1000)

    sent = tmp_path / "sent"
    sent.write_text("sent")
    os.chown(sent, 1000, 1000)
    docker("cp", "-a", str(sent), f"{name}:/volume/sent")
    docker("cp", str(sent), f"{name}:/sent")
    assert docker(*run, "stat -c %u /volume/sent /sent; cat /sent").stdout.split() == ["1000", "1000", "sent"]
    with tarfile.open(fileobj=io.BytesIO(_bytes(remapped, f"/containers/{name}/archive?path=/volume/f"))) as archive:
        assert (archive.getmember("f").uid, archive.getmember("f").gid) == (1000, 1000)
    with tarfile.open(fileobj=io.BytesIO(_bytes(remapped, f"/containers/{name}/export"))) as archive:
        assert {member.uid for member in archive if not member.name.startswith(("dev", "proc", "sys"))} <= {0, 1000}
    assert "A /index.html" in docker("diff", name).stdout
    assert docker("exec", "-u", "bob", name, "id", "-u").stdout == "1000\n"
    docker("restart", "-t", "0", name)
    assert docker(*run, "stat -c %u /sent").stdout == "1000\n"

    image = remapped.name("img")
    docker("commit", name, image)
    docker("stop", "-t", "0", name)
    docker("cp", str(sent), f"{name}:/volume/late")
    assert (data / "late").stat().st_uid == FIRST + 1000
    assert docker("run", "--rm", image, "stat", "-c", "%u", "/sent").stdout == "1000\n"
    # Without the namespace the same image, and the same layers, look the same.
    assert docker("run", "--rm", "--userns=host", image, "sh", "-c", "stat -c %u /sent /index.html; cat /proc/self/uid_map"
                  ).stdout.split()[:4] == ["1000", "0", "0", "0"]  # fmt: skip


def test_namespaces_of_others_and_refusals(remapped: Engine) -> None:
    docker = remapped.docker
    one = remapped.name()
    docker("run", "-d", "--name", one, "--ipc", "shareable", "busybox", "sleep", "60")
    joined = ["--network", f"container:{one}", "--ipc", f"container:{one}", "--pid", f"container:{one}"]
    assert "sleep" in docker("run", "--rm", *joined, "busybox", "sh", "-c", "touch /dev/shm/x && ps").stdout
    assert docker("run", "--rm", "--network", "none", "busybox", "hostname").stdout
    assert docker("run", "--rm", "--tmpfs", "/t:size=1m", "--read-only", "busybox", "sh", "-c", "echo a > /t/a; cat /t/a"
                  ).stdout == "a\n"  # fmt: skip
    mount = "type=image,source=busybox,target=/image"
    assert docker("run", "--rm", "--mount", mount, "busybox", "stat", "-c", "%u", "/image/bin").stdout == "0\n"
    assert "name=userns" in docker("info", "--format", "{{.SecurityOptions}}").stdout
    for option, words in (
        ("--privileged", "privileged mode is incompatible with user namespaces"),
        ("--network=host", "cannot share the host's network namespace when user namespaces are enabled"),
        ("--pid=host", "cannot share the host PID namespace when user namespaces are enabled"),
    ):
        assert words in docker("create", option, "busybox", check=False).stderr
    assert docker("run", "--rm", "--privileged", "--userns=host", "busybox", "true").returncode == 0
    # What was remapped stays so when the daemon is started without the option.
    remapped.flags.remove("--userns-remap=daemon")
    remapped.restart()
    assert docker("exec", one, "cat", "/proc/self/uid_map").stdout.split() == ["0", str(FIRST), "65536"]
    docker("restart", "-t", "0", one)
    assert docker("exec", one, "cat", "/proc/self/uid_map").stdout.split() == ["0", str(FIRST), "65536"]
    assert docker("run", "--rm", "busybox", "cat", "/proc/self/uid_map").stdout.split()[:2] == ["0", "0"]


def test_who_has_no_ids_is_refused(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--userns-remap=no-such-user", start=False)
    assert engine.spawn().wait(20) != 0
    assert "there is no user 'no-such-user'" in engine.log()


def _bytes(engine: Engine, path: str) -> bytes:
    answer = engine.http("GET", path)
    assert answer.status == 200, answer.body
    return answer.body


def test_the_owners_of_a_mounted_image(remapped: Engine) -> None:
    mount = {"Type": "image", "Source": "busybox", "Target": "/x", "ImageOptions": {"Subpath": "bin"}}
    command = ["stat", "-c", "%u:%g", "/x", "/x/busybox"]
    body = {"Image": "busybox", "Cmd": command, "HostConfig": {"Mounts": [mount]}}
    container = remapped.http("POST", "/v1.48/containers/create", body).json()["Id"]
    # Root's files are those of the container's own root, not nobody's.
    assert remapped.docker("start", "-a", container).stdout.split() == ["0:0", "0:0"]
    remapped.docker("rm", container)
