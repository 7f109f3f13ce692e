"""`engine images` and `engine import`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO

import click

from plugin_sdk.times import ago

if TYPE_CHECKING:
    from docker import DockerClient

_host = click.option(
    "-H", "--host", envvar="DOCKER_HOST", help="The engine's address, for example unix:///run/docker.sock"
)


def _client(host: str | None) -> DockerClient:
    import docker

    try:
        return docker.DockerClient(base_url=host, timeout=600)
    except docker.errors.DockerException as error:
        raise click.ClickException(f"cannot reach the engine ($DOCKER_HOST or -H say where it is): {error}") from None


@click.command("images", help="List images.")
@_host
@click.option("-q", "--quiet", is_flag=True, help="Only IDs.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also the steps on the way to other images.")
@click.argument("name", required=False)
def images(host: str | None, quiet: bool, everything: bool, name: str | None) -> None:
    """One line for each name of an image."""
    rows = [("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE")]
    for entry in _client(host).api.images(name=name, all=everything):
        short = entry["Id"].removeprefix("sha256:")[:12]
        if quiet:
            click.echo(short)
            continue
        for tag in entry["RepoTags"] or ["<none>:<none>"]:
            repository, _, label = tag.rpartition(":")
            made = f"{ago(entry['Created'] * 10**9)} ago"
            rows.append((repository, label, short, made, f"{entry['Size'] / 1e6:.1f}MB"))
    if not quiet:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            click.echo("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@click.command("import", help='Make an image from a tar of a root file system ("-": standard input).')
@_host
@click.option("-c", "--change", "changes", multiple=True, help='A Dockerfile instruction, for example CMD ["sh"].')
@click.option("-m", "--message", default="", help="Comment of the image.")
@click.argument("file", type=click.File("rb"))
@click.argument("name", required=False, default="")
def import_(host: str | None, changes: tuple[str, ...], message: str, file: BinaryIO, name: str) -> None:
    """Prints the ID of the image."""
    import docker

    from plugin_sdk.reference import parse

    client = _client(host)
    reference = parse(name) if name else None
    parameters = {
        "fromSrc": "-",
        "repo": reference.familiar_name if reference else "",
        "tag": reference.tag if reference else "",
        "message": message,
        "changes": list(changes),
    }
    api = client.api
    try:
        answer = api._post(api._url("/images/create"), data=file, params=parameters)
        for line in api._result(answer).splitlines():
            said = json.loads(line)
            if "error" in said:
                raise click.ClickException(said["error"])
            click.echo(said["status"])
    except docker.errors.APIError as error:
        raise click.ClickException(error.explanation or str(error)) from None
