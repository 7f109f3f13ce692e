"""Images through the stock docker CLI: ways in and out, names, filters, removal and its refusals."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client

pytestmark = pytest.mark.real

Names = Callable[[], str]


def rootfs(*files: str) -> bytes:
    """A small tar that no other test has."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in files:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    return out.getvalue()


@pytest.fixture
def names(engine: Client) -> Iterator[Names]:
    """Makes names of images; whatever bears them is removed afterwards."""
    made: list[str] = []

    def name() -> str:
        made.append(engine.name("img"))
        return made[-1]

    yield name
    for tag in engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split():
        if any(tag.startswith(f"{each}:") for each in made):
            engine.docker("rmi", "-f", tag, check=False)


@pytest.fixture
def remove_containers(engine: Client) -> Iterator[list[str]]:
    made: list[str] = []
    yield made
    for name in made:
        engine.docker("rm", "-f", name, check=False)


def image_id(engine: Client, ref: str) -> str:
    return str(engine.inspect(ref)["Id"])


def refused(engine: Client, *args: str | Path, code: int = 1, input: bytes | None = None) -> str:
    done = engine.docker(*args, check=False, input=input)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr.strip().splitlines()[0] if done.stderr.strip() else ""


def test_import_with_changes(engine: Client, names: Names) -> None:
    name = names()
    changes = [
        'CMD ["sh", "-c", "x"]', "ENTRYPOINT /bin/run me", 'ENV A="x y" B=2', "ENV C=$A", "EXPOSE 80 53/udp", "LABEL k=v",
        "USER 1:2", "VOLUME /data", "WORKDIR /w", "HEALTHCHECK --interval=5s CMD true", "STOPSIGNAL SIGINT",
        "ONBUILD RUN y",
    ]  # fmt: skip
    flags = [part for change in changes for part in ("--change", change)]
    done = engine.docker("import", *flags, "-m", "the message", "-", f"{name}:v1", input=rootfs("f"))
    found = engine.inspect(f"{name}:v1")
    assert done.stdout.strip() == found["Id"]
    config = found["Config"]
    assert config["Cmd"] in (["sh", "-c", "x"], None)
    assert config["Entrypoint"] == ["/bin/sh", "-c", "/bin/run me"]
    assert config["Env"] == ["A=x y", "B=2", "C=x y"]
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"} and config["Labels"] == {"k": "v"}
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("1:2", "/w", "SIGINT")
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9}
    assert list(config["Volumes"]) == ["/data"] and config["OnBuild"] == ["RUN y"]
    assert found["Comment"] == "the message" and found["RepoTags"] == [f"{name}:v1"]
    assert (found["Os"], len(found["RootFS"]["Layers"])) == ("linux", 1)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_import_reads_compressed_archives(engine: Client, names: Names, pack: Callable[[bytes], bytes]) -> None:
    raw = rootfs("f", pack.__module__)
    name = names()
    engine.docker("import", "-", name, input=pack(raw))
    assert engine.inspect(name)["RootFS"]["Layers"] == ["sha256:" + hashlib.sha256(raw).hexdigest()]


@pytest.mark.parametrize(
    ("args", "input", "said"),
    [
        (["-", "Upper"], b"", "must be lowercase"),
        (["--change", "FOO x", "-", "x"], b"", "FOO is not a valid change command"),
        (["--change", "EXPOSE abc", "-", "x"], b"", "nvalid containerPort: abc"),
        (["-", "x"], b"junk" * 300, ""),
        (["-", "x"], rootfs("f" * 50)[:700], ""),
        (["-", "x"], b"\x1f\x8b\x08" + b"junk" * 300, ""),
    ],
)
def test_bad_imports_leave_nothing(engine: Client, args: list[str], input: bytes, said: str) -> None:
    before = engine.census()
    assert said in refused(engine, "import", *args, input=input)
    assert engine.census() == before


def test_import_from_a_url_is_refused_clearly(engine: Client) -> None:
    refused(engine, "import", "http://127.0.0.1:1/x.tar", "x")


def test_tags(engine: Client, names: Names) -> None:
    one, two = names(), names()
    engine.docker("import", "-", f"{one}:a", input=rootfs(one))
    engine.docker("tag", f"{one}:a", two)
    engine.docker("tag", image_id(engine, two)[7:19], f"localhost:5000/{two}/deep:x.y_z-1")
    found = engine.inspect(two)
    assert sorted(found["RepoTags"]) == sorted([f"{one}:a", f"{two}:latest", f"localhost:5000/{two}/deep:x.y_z-1"])
    engine.docker("rmi", f"localhost:5000/{two}/deep:x.y_z-1")
    engine.docker("import", "-", f"{one}:a", input=rootfs(one, "other"))
    assert engine.inspect(two)["RepoTags"] == [f"{two}:latest"]
    assert f"No such image: {one}-no:latest" in refused(engine, "tag", f"{one}-no", "x")
    for path, status in (("repo=a&tag=b@d", 400), ("repo=UP", 400), (f"repo=a@sha256:{'0' * 64}", 400)):
        assert engine.http("POST", f"/images/{two}/tag?{path}").status == status


def test_save_and_load_bring_the_very_same_back(engine: Client, names: Names, tmp_path: Path) -> None:
    one, two = names(), names()
    engine.docker("import", "-c", "LABEL x=1", "-", f"{one}:a", input=rootfs(one, "dir/file"))
    engine.docker("tag", f"{one}:a", f"{one}:b")
    engine.docker("import", "-", two, input=rootfs(two))
    before = {ref: image_id(engine, ref) for ref in (f"{one}:a", two)}
    saved = tmp_path / "saved.tar"
    engine.docker("save", "-o", saved, f"{one}:a", f"{one}:b", two)
    with tarfile.open(saved) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
    for name, content in files.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(content).hexdigest() == name.removeprefix("blobs/sha256/")
    entries = {entry["Config"]: entry["RepoTags"] for entry in json.loads(files["manifest.json"])}
    assert entries[f"blobs/sha256/{before[two][7:]}"] == [f"{two}:latest"]
    assert json.loads(files["oci-layout"])["imageLayoutVersion"] == "1.0.0"
    index = json.loads(files["index.json"])["manifests"]
    assert {each["annotations"]["io.containerd.image.name"] for each in index} == {
        f"docker.io/library/{ref}" for ref in (f"{one}:a", f"{one}:b", f"{two}:latest")
    }
    engine.docker("rmi", f"{one}:a", f"{one}:b", two)
    loaded = engine.docker("load", "-i", saved).stdout.splitlines()
    assert sorted(loaded) == sorted(f"Loaded image: {ref}" for ref in (f"{one}:a", f"{one}:b", f"{two}:latest"))
    assert {ref: image_id(engine, ref) for ref in before} == before
    again = tmp_path / "again.tar"
    engine.docker("save", "-o", again, f"{one}:a", f"{one}:b", two)
    with tarfile.open(again) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar if m.isreg()} == files  # type: ignore[union-attr]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_load_reads_compressed_archives(engine: Client, names: Names, pack: Callable[[bytes], bytes]) -> None:
    name = names()
    engine.docker("import", "-", name, input=rootfs(name))
    wanted = image_id(engine, name)
    saved = engine.http("GET", f"/images/{name}/get").body
    engine.docker("rmi", name)
    assert engine.docker("load", input=pack(saved)).stdout == f"Loaded image: {name}:latest\n"
    assert image_id(engine, name) == wanted


def test_load_of_an_image_saved_by_id_has_no_name(engine: Client, names: Names) -> None:
    name = names()
    engine.docker("import", "-", name, input=rootfs(name))
    wanted = image_id(engine, name)
    saved = engine.http("GET", f"/images/{wanted}/get").body
    engine.docker("rmi", name)
    assert engine.docker("load", "-q", input=saved).stdout == f"Loaded image ID: {wanted}\n"
    engine.docker("rmi", wanted)


def test_save_of_several_by_repository_and_of_none(engine: Client, names: Names) -> None:
    name = names()
    for tag in ("a", "b"):
        engine.docker("import", "-", f"{name}:{tag}", input=rootfs(name, tag))
    with tarfile.open(fileobj=io.BytesIO(engine.http("GET", f"/images/get?names={name}").body)) as tar:
        entries = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert sorted(tag for entry in entries for tag in entry["RepoTags"]) == [f"{name}:a", f"{name}:b"]
    assert engine.http("GET", f"/images/{name}-no/get").status == 404


def oci_layout(*, named: str, compress: bool = True, wrong: str = "") -> bytes:
    """An OCI layout as `skopeo copy` writes it, with an index of two platforms."""
    layer = rootfs(named, "oci")
    packed = gzip.compress(layer) if compress else layer
    diff = "sha256:" + hashlib.sha256(b"other" if wrong == "diff" else layer).hexdigest()
    blobs: list[bytes] = [packed]

    def blob(document: Any) -> dict[str, Any]:
        raw = json.dumps(document).encode()
        blobs.append(raw)
        return {"digest": "sha256:" + hashlib.sha256(raw).hexdigest(), "size": len(raw)}

    manifests = []
    for architecture in ("riscv64", "amd64"):
        config = blob({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": [diff]}})
        target = {"digest": "sha256:" + hashlib.sha256(packed).hexdigest(), "size": len(packed)}
        manifest = blob({"schemaVersion": 2, "config": config, "layers": [target]})
        manifests.append(manifest | {"platform": {"os": "linux", "architecture": architecture}})
    media = "application/vnd.oci.image.index.v1+json"
    inner = blob({"schemaVersion": 2, "mediaType": media, "manifests": manifests})
    top = {"manifests": [inner | {"mediaType": media, "annotations": {"org.opencontainers.image.ref.name": named}}]}
    files = {f"blobs/sha256/{hashlib.sha256(raw).hexdigest()}": raw for raw in blobs}
    if wrong == "blob":
        files[next(reversed(files))] += b" "
    files |= {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(top).encode()}
    return archive(files)


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def docker_archive(name: str, **wrong: Any) -> bytes:
    layer = rootfs(name)
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": wrong.get("diff_ids") or [
        "sha256:" + hashlib.sha256(layer).hexdigest()]}}  # fmt: skip
    manifest = [
        {"Config": "config.json", "RepoTags": wrong.get("tags", [name]), "Layers": wrong.get("layers", ["l/layer.tar"])}
    ]
    return archive(
        {
            "config.json": json.dumps(config).encode(),
            "l/layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        }
    )


def test_load_of_an_oci_layout(engine: Client, names: Names, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--collect-only") or type(engine).__name__ == "External":
        pytest.skip("dockerd without the containerd store loads no bare OCI layouts")
    name = names()
    assert engine.docker("load", input=oci_layout(named=f"{name}:oci")).stdout == f"Loaded image: {name}:oci\n"
    assert engine.inspect(f"{name}:oci")["Architecture"] == "amd64"


def test_load_of_an_old_docker_archive(engine: Client, names: Names) -> None:
    name = names()
    assert engine.docker("load", input=docker_archive(name)).stdout == f"Loaded image: {name}:latest\n"


@pytest.mark.parametrize(
    "make",
    [
        lambda name: b"",
        lambda name: b"junk" * 1000,
        lambda name: archive({"something": b"else"}),
        lambda name: archive({"manifest.json": b"{"}),
        lambda name: archive({"manifest.json": b'{"a": 1}'}),
        lambda name: archive({"manifest.json": b'[{"Layers": []}]'}),
        lambda name: archive({"manifest.json": b"[]"}),
        lambda name: docker_archive(name, diff_ids=["sha256:" + "0" * 64]),
        lambda name: docker_archive(name, layers=[]),
        lambda name: docker_archive(name, layers=["nowhere"]),
        lambda name: docker_archive(name, tags=["Upper:x"]),
        lambda name: docker_archive(name)[:2000],
        lambda name: oci_layout(named=name, wrong="diff"),
        lambda name: oci_layout(named=name, wrong="blob"),
    ],
)
def test_bad_archives_leave_nothing(engine: Client, make: Callable[[str], bytes]) -> None:
    if type(engine).__name__ == "External":
        pytest.skip("dockerd takes some of these")
    before = engine.census()
    refused(engine, "load", input=make(engine.name("img")))
    assert engine.census() == before


def test_list_and_its_filters(engine: Client, names: Names) -> None:
    old, new = names(), names()
    engine.docker("import", "-c", "LABEL who=old", "-", f"{old}:1", input=rootfs(old))
    engine.docker("import", "-c", "LABEL who=new", "-", f"{new}:1", input=rootfs(new))
    engine.docker("tag", f"{new}:1", f"{new}:2")

    def listed(*args: str) -> list[str]:
        lines = engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}", *args).stdout.split()
        return sorted(line for line in lines if line.startswith((old, new)))

    assert listed() == sorted([f"{old}:1", f"{new}:1", f"{new}:2"])
    assert listed(new) == listed("-f", f"reference={new}") == [f"{new}:1", f"{new}:2"]
    assert listed("-f", f"reference={new}:?") == [f"{new}:1", f"{new}:2"] and listed(f"{new}:2") == [f"{new}:2"]
    assert listed("-f", "label=who=old") == [f"{old}:1"]
    assert listed("-f", f"since={old}:1") == [f"{new}:1", f"{new}:2"]
    assert listed("-f", f"before={new}:1") == [f"{old}:1"]
    assert listed("-f", "dangling=true") == [] and listed("-f", "until=1h") == []
    assert "invalid filter" in refused(engine, "images", "-f", "what=1")
    assert "invalid filter" in refused(engine, "images", "-f", "dangling=maybe")
    ids = engine.docker("images", "-q", "--no-trunc").stdout.split()
    assert ids.index(image_id(engine, f"{new}:1")) < ids.index(image_id(engine, f"{old}:1"))


def test_shapes_follow_the_api_version(engine: Client, names: Names) -> None:
    name = names()
    engine.docker("import", "-", name, input=rootfs(name))
    wanted = image_id(engine, name)
    engine.docker("import", "-", name, input=rootfs(name, "newer"))

    def entry(version: str) -> dict[str, Any]:
        listed = engine.http("GET", f"/v{version}/images/json").json()
        return next(each for each in listed if each["Id"] == wanted)

    old, new = entry("1.41"), entry("1.45")
    assert (old["RepoTags"], old["RepoDigests"]) == (["<none>:<none>"], ["<none>@<none>"])
    assert (new["RepoTags"], new["RepoDigests"]) == ([], [])
    assert old["VirtualSize"] == old["Size"] and "VirtualSize" not in new
    inspected = {
        version: engine.http("GET", f"/v{version}/images/{wanted}/json").json() for version in ("1.41", "1.45")
    }
    assert "VirtualSize" in inspected["1.41"] and "VirtualSize" not in inspected["1.45"]
    assert "ContainerConfig" in inspected["1.41"] and "ContainerConfig" not in inspected["1.45"]
    assert inspected["1.45"]["GraphDriver"]["Name"] == "overlay2"
    engine.docker("rmi", wanted)


@pytest.mark.parametrize("ref", ["no-such-image", "no-such-image:tag", "0123456789ab", "sha256:" + "0" * 64])
def test_unknown_images(engine: Client, ref: str) -> None:
    shown = ref if ":" in ref else f"{ref}:latest"
    # Older clients say it in their own words.
    said = (f"Error response from daemon: No such image: {shown}", f"Error: No such image: {ref}")
    assert refused(engine, "rmi", ref) in said
    assert engine.http("GET", f"/images/{ref}/json").status == 404
    assert engine.http("GET", f"/images/{ref}/history").status == 404


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("Upper", "invalid reference format: repository name (library/Upper) must be lowercase"),
        ("a:b:c", "invalid reference format"),
    ],
)
def test_bad_references(engine: Client, ref: str, message: str) -> None:
    answer = engine.http("DELETE", f"/images/{ref}")
    assert (answer.status, answer.message) == (400, message)


def test_running_an_unknown_image_ends_with_125(engine: Client) -> None:
    name = engine.name("img")
    said = refused(engine, "run", "--rm", name, "true", code=125)
    assert said == f"Unable to find image '{name}:latest' locally"


def test_images_in_use_are_kept(engine: Client, names: Names, busybox_tar: Path, remove_containers: list[str]) -> None:
    name, other, running, stopped = names(), names(), engine.name(), engine.name()
    remove_containers += [running, stopped]
    engine.docker("import", "-m", name, busybox_tar, f"{name}:1")
    wanted = image_id(engine, f"{name}:1")
    short = wanted[7:19]
    prefix = "Error response from daemon: conflict: unable to"
    first = engine.docker("create", "--name", stopped, "--network", "none", f"{name}:1", "true").stdout[:12]
    assert refused(engine, "rmi", f"{name}:1") == (
        f'{prefix} remove repository reference "{name}:1" (must force) - container {first} is using its referenced image'
        f" {short}"
    )
    assert refused(engine, "rmi", wanted) == (
        f"{prefix} delete {short} (must be forced) - image is being used by stopped container {first}"
    )
    second = engine.docker("run", "-d", "--name", running, "--network", "none", f"{name}:1", "sleep", "600").stdout[:12]
    for flags in ([], ["-f"]):
        assert refused(engine, "rmi", *flags, wanted) == (
            f"{prefix} delete {short} (cannot be forced) - image is being used by running container {second}"
        )
    engine.docker("tag", wanted, f"{other}:1")
    assert engine.docker("rmi", f"{other}:1").stdout == f"Untagged: {other}:1\n"
    assert engine.docker("rmi", "-f", f"{name}:1").stdout == f"Untagged: {name}:1\n"
    assert engine.inspect(running)["Image"] == wanted
    engine.docker("rm", "-f", running, stopped)
    assert f"Deleted: {wanted}\n" in engine.docker("rmi", wanted).stdout


def test_an_image_with_several_names_by_id(engine: Client, names: Names) -> None:
    one, two = names(), names()
    engine.docker("import", "-", one, input=rootfs(one))
    engine.docker("tag", one, two)
    wanted = image_id(engine, one)
    assert "(must be forced) - image is referenced in multiple repositories" in refused(engine, "rmi", wanted)
    gone = engine.docker("rmi", "-f", wanted).stdout
    assert all(f"Untagged: {name}:latest\n" in gone for name in (one, two)) and f"Deleted: {wanted}\n" in gone


def test_parents_and_children(engine: Client, names: Names, busybox_tar: Path, remove_containers: list[str]) -> None:
    base, child, container = names(), names(), engine.name()
    remove_containers.append(container)
    engine.docker("import", "-m", base, busybox_tar, base)
    engine.docker("run", "--name", container, "--network", "none", base, "sh", "-c", "echo x > /made; rm /etc/passwd")
    engine.docker("commit", "-m", "what", container, child)
    engine.docker("rm", container)
    parent = image_id(engine, base)
    assert engine.inspect(child)["Parent"] == parent
    assert "(cannot be forced) - image has dependent child images" in refused(engine, "rmi", "-f", parent)
    rows = engine.docker("history", "--no-trunc", "--format", "{{.ID}} {{.Comment}}", child).stdout.splitlines()
    assert rows == [f"{image_id(engine, child)} what", f"{parent} {base}"]
    ran = engine.docker("run", "--rm", "--network", "none", child, "sh", "-c", "cat /made; ls /etc")
    assert ran.stdout.split()[0] == "x" and "passwd" not in ran.stdout
    engine.docker("rmi", base)
    saved = engine.http("GET", f"/images/{child}/get").body
    gone = engine.docker("rmi", child).stdout
    assert f"Deleted: {parent}\n" in gone
    engine.docker("load", input=saved)
    assert engine.docker("run", "--rm", "--network", "none", child, "cat", "/made").stdout == "x\n"


def test_prune(engine: Client, names: Names) -> None:
    name, label = names(), names()
    engine.docker("import", "-c", f"LABEL {label}=1", "-", name, input=rootfs(name))
    dangling = image_id(engine, name)
    engine.docker("import", "-c", f"LABEL {label}=1", "-", name, input=rootfs(name, "2"))
    assert "Total reclaimed space: 0B" in engine.docker("image", "prune", "-f", "--filter", f"label!={label}", "--filter",
                                                        f"label={label}").stdout  # fmt: skip
    pruned = engine.docker("image", "prune", "-f", "--filter", f"label={label}").stdout
    assert f"deleted: {dangling}" in pruned
    assert image_id(engine, name) != dangling
    engine.docker("image", "prune", "-a", "-f", "--filter", f"label={label}")
    assert engine.http("GET", f"/images/{name}/json").status == 404


def test_events(engine: Client, names: Names) -> None:
    name = names()
    mark = engine.docker("info", "--format", "{{.SystemTime}}").stdout.strip()
    engine.docker("import", "-c", "LABEL l=1", "-", f"{name}:a", input=rootfs(name))
    wanted = image_id(engine, f"{name}:a")
    engine.docker("tag", wanted, f"{name}:b")
    saved = engine.http("GET", f"/images/{wanted}/get").body
    engine.docker("rmi", f"{name}:b", f"{name}:a")
    engine.docker("load", input=saved)
    engine.docker("rmi", wanted)
    flags = ["--since", mark, "--until", f"{int(time.time()) + 1}", "--filter", f"image={wanted}"]
    told = engine.docker(
        "events", *flags, "--format", '{{.Action}} {{index .Actor.Attributes "name"}} {{index .Actor.Attributes "l"}}'
    )
    said = told.stdout.splitlines()
    for line in (f"import {wanted} 1", f"tag {name}:a 1", f"tag {name}:b 1", f"save {wanted} 1", f"untag {wanted} 1",
                 f"delete {wanted} 1", f"load {wanted} 1"):  # fmt: skip
        assert line in said


def test_our_own_commands(engine: Client, names: Names, tmp_path: Path) -> None:
    if type(engine).__name__ == "External":
        pytest.skip("the command speaks to any engine, but only ours is in question")
    name = names()
    (tmp_path / "fs.tar").write_bytes(rootfs(name))
    made = engine.engine(
        "import", "-H", engine.host, "-c", "USER me", tmp_path / "fs.tar", f"{name}:own"
    ).stdout.strip()
    assert made == image_id(engine, f"{name}:own") and engine.inspect(made)["Config"]["User"] == "me"
    listed = engine.engine("images", "-H", engine.host, name).stdout.splitlines()
    assert listed[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert listed[1].split()[:3] == [name, "own", made[7:19]]
    assert engine.engine("images", "-H", engine.host, "-q", name).stdout.split() == [made[7:19]]
    failed = engine.engine("import", "-H", engine.host, "-c", "FOO", tmp_path / "fs.tar", check=False)
    assert failed.returncode == 1 and "FOO is not a valid change command" in failed.stderr
