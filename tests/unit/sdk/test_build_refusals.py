"""What `build` does not take: projects that say too little, archives that lead outside."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from plugin_sdk import Conflict, EngineError, InvalidParameter, NotFound, NotSupported
from plugin_sdk.authoring import image
from plugin_sdk.authoring.build import build
from plugin_sdk.authoring.project import read

CONFIG = {"description": "d", "interface": {"types": [], "socket": ""}, "entrypoint": ["/bin/x"]}


def project(folder: Path, table: str = "", config: str = "") -> Path:
    (folder / "pyproject.toml").write_text(f'[project]\nname = "acme"\nversion = "1"\n{table}')
    if config:
        (folder / "config.json").write_text(config)
    return folder


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no pyproject.toml"):
        read(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(NotSupported, match="--from-image"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("table", "config", "message"),
    [
        ("", "", "must name the class to serve"),
        ("[tool.engine.plugin]\ndriver = 'acme'", "", "'acme' is not of the form package.module:name"),
        ("[tool.engine.plugin]\nmain = 'acme:main'", "", "must name the class to serve"),
        ("[tool.engine.plugin]\ndriver = 'a:B'", "{", "config.json"),
        ("[tool.engine.plugin]\ndriver = 'a:B'", "[]", "want an object"),
        ("nonsense", "", "pyproject.toml"),
    ],
)
def test_projects_that_say_too_little(tmp_path: Path, table: str, config: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        read(project(tmp_path, table, config))


def test_fields_of_both_files(tmp_path: Path) -> None:
    table = "[tool.engine.plugin]\nmain = 'a:m'\npropagatedMount = '/data'\n"
    found = read(project(tmp_path, table, '{"Interface": {"Types": ["docker.volumedriver/1.0"]}, "description": "d"}'))
    assert found.config["propagatedMount"] == "/data"
    assert found.config["description"] == "d"


def test_what_is_in_the_way_stays(tmp_path: Path) -> None:
    project(tmp_path, "[tool.engine.plugin]\ndriver = 'a:B'")
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(Conflict, match="holds something else"):
        build(tmp_path, out)
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_class_that_cannot_be_imported_leaves_nothing(tmp_path: Path) -> None:
    project(
        tmp_path,
        "[tool.engine.plugin]\ndriver = 'acme_module:Nothing'\n[tool.setuptools]\npy-modules = ['acme_module']",
    )
    (tmp_path / "acme_module.py").write_text("import fastapi\n")
    with pytest.raises(EngineError, match="No module named 'fastapi'"):
        build(tmp_path, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acme_module.py", "pyproject.toml"]


def archive(*members: tuple[str, bytes, str, bytes]) -> io.BytesIO:
    """(name, type, link, content) of each member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(content), 0o4755
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def test_a_file_system_becomes_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "entrypoint": []}))
    made = archive(
        ("bin/x", tarfile.REGTYPE, "", b"x"),
        ("bin/y", tarfile.LNKTYPE, "bin/x", b""),
        ("z", tarfile.SYMTYPE, "/bin/x", b""),
    )
    known = {"Entrypoint": ["/bin/x"], "Cmd": ["-v"], "WorkingDir": "/srv", "Env": ["PATH=/bin", "A=b"]}
    image.build(tmp_path, tmp_path / "out", made, known)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["entrypoint"], config["workdir"], config["env"]) == (
        ["/bin/x", "-v"],
        "/srv",
        [{"name": "A", "value": "b"}],
    )
    assert (tmp_path / "out/rootfs/bin/x").stat().st_mode & 0o7777 == 0o4755
    assert (tmp_path / "out/rootfs/z").readlink() == Path("/bin/x")
    assert (tmp_path / "out/rootfs/proc").is_dir()


@pytest.mark.parametrize(
    "members",
    [
        [("../outside", tarfile.REGTYPE, "", b"x")],
        [("a", tarfile.SYMTYPE, "..", b""), ("a/outside", tarfile.REGTYPE, "", b"x")],
        [("a", tarfile.LNKTYPE, "../../secret", b""), ("a", tarfile.REGTYPE, "", b"x")],
        [("up", tarfile.SYMTYPE, "../..", b""), ("a", tarfile.LNKTYPE, "up/secret", b"")],
    ],
)
def test_archives_that_lead_outside(tmp_path: Path, members: list[tuple[str, bytes, str, bytes]]) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (tmp_path / "secret").write_text("s")
    (folder / "secret").write_text("s")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(InvalidParameter, match="archive cannot be read"):
        image.build(folder, folder / "out", archive(*members), {})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "p", "secret", "secret"]
    assert (tmp_path / "secret").read_text() == (folder / "secret").read_text() == "s"


def test_links_of_an_image_are_not_followed_outside(tmp_path: Path) -> None:
    folder, outside = tmp_path / "p", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir(mode=0o750)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "propagatedMount": "/etc/data"}))
    links = [(name, tarfile.SYMTYPE, str(outside), b"") for name in ("etc", "tmp", "var")]
    image.build(folder, folder / "out", archive(*links), {})
    assert list(outside.iterdir()) == []
    assert outside.stat().st_mode & 0o7777 == 0o750


def test_archives_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"no config.json"):
        image.build(tmp_path, tmp_path / "out", archive(), {})
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(InvalidParameter, match="docker save"):
        image.build(tmp_path, tmp_path / "out", archive(("manifest.json", tarfile.REGTYPE, "", b"[]")), {})
    with pytest.raises(InvalidParameter, match="archive cannot be read"):
        image.build(tmp_path, tmp_path / "out", io.BytesIO(b"no tar at all" * 100), {})
