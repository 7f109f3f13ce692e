"""`engine plugin init` and `engine plugin build`: for those who write plugins. They need no engine, but for images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from plugins.plugin_admin.client import Client

_KINDS = ("volume", "network", "ipam", "log", "authz", "metrics")
_TIMEOUT = 120
"""Seconds for one answer of the engine, and for each piece of an export."""


@contextmanager
def _told() -> Iterator[None]:
    """What is refused becomes one line and exit code 1."""
    from plugin_sdk import EngineError

    try:
        yield
    except (EngineError, OSError) as error:
        raise click.ClickException(str(error)) from None


@click.command("init")
@click.argument("name")
@click.option("--kind", type=click.Choice(_KINDS), required=True, help="What the plugin does")
@click.option("--managed", is_flag=True, help="A plugin in a container of its own, rather than in the daemon")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make  [default: NAME]")
def init(name: str, kind: str, managed: bool, output: Path | None) -> None:
    """Begin a plugin in Python: a project that works, with tests."""
    from plugin_sdk.authoring.scaffold import create

    folder = output or Path(name)
    with _told():
        for path in create(name, kind, folder, managed=managed):
            click.echo(path)


@click.command("build")
@click.argument("project", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make  [default: PROJECT/build]")
@click.option("--name", help="What to call the plugin, in the advice at the end  [default: the project's name]")
@click.option(
    "--from-image",
    "image",
    metavar="TAR|IMAGE",
    help="Take the file system of a `docker export` archive or of an image of the engine; for any language",
)
@click.pass_obj
def build(client: Client, project: Path, output: Path | None, name: str | None, image: str | None) -> None:
    """Make config.json and rootfs/ of the Python project in the folder PROJECT.

    The table [tool.engine.plugin] of its pyproject.toml names what to serve: driver = "package.module:Class", and perhaps
    main = "package.module:function". All else stands in config.json beside it, or in the same table.
    """
    out = output or project / "build"
    with _told():
        types = _from_image(client, project, out, image) if image else _from_python(project, out)
    size = sum(path.lstat().st_size for path in out.rglob("*")) / 1e6
    click.echo(f"{out}: {', '.join(types)}, {size:.0f} MB", err=True)
    click.echo(f"engine plugin create {name or project.resolve().name} {out}")


def _from_python(project: Path, out: Path) -> list[str]:
    from plugin_sdk.authoring.build import build as build_project

    return build_project(project, out)


def _from_image(client: Client, project: Path, out: Path, image: str) -> list[str]:
    from plugin_sdk.authoring.image import build as build_image

    if Path(image).is_file():
        with Path(image).open("rb") as archive:
            return build_image(project, out, archive, {})
    with tempfile.TemporaryFile() as archive:
        config = _export(client.host, image, archive)
        archive.seek(0)
        return build_image(project, out, archive, config)


def _export(host: str, image: str, archive: IO[bytes]) -> dict[str, Any]:
    """Write the image's file system as a tar; gives its config."""
    import docker
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    try:
        api = docker.APIClient(**kwargs_from_env() | {"base_url": host, "timeout": _TIMEOUT})
        config: dict[str, Any] = api.inspect_image(image)["Config"] or {}
        # A container without a command cannot be made, and this one never runs.
        made = api.create_container(image, command=["-"], network_disabled=True)["Id"]
        try:
            for piece in api.export(made):
                archive.write(piece)
        finally:
            api.remove_container(made, force=True)
    except DockerException as error:
        raise click.ClickException(
            f"image {image!r} cannot be exported: {getattr(error, 'explanation', error)}"
        ) from None
    return config
