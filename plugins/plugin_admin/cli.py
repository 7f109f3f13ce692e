"""`engine plugin`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from plugins.plugin_admin import authoring
from plugins.plugin_admin.client import Client, ClientError

_PIECE = 1024 * 1024


class _Group(click.Group):
    """Turns what the engine refuses into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ClientError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Group)
@click.option("-H", "--host", default="", metavar="URL", help="Engine to speak to (default: $DOCKER_HOST)")
@click.pass_context
def plugin(ctx: click.Context, host: str) -> None:
    """Manage plugins: managed ones, and those that run in the daemon."""
    ctx.obj = Client(host)


@plugin.command("create")
@click.argument("name")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.pass_obj
def create(client: Client, name: str, folder: Path) -> None:
    """Make a managed plugin NAME from FOLDER, which holds config.json and rootfs/."""
    for wanted in ("config.json", "rootfs"):
        if not (folder / wanted).exists():
            raise click.ClickException(f"{folder} has no {wanted}")
    headers = {"Content-Type": "application/x-tar"}
    client.call("POST", f"/plugins/create?name={quote(name, safe='')}", _archive(folder), headers)
    click.echo(name)


def _archive(folder: Path) -> Iterator[bytes]:
    """The folder as a tar, piece by piece."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in (folder / "config.json", *sorted([folder / "rootfs", *(folder / "rootfs").rglob("*")])):
            tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)
            if buffer.tell() >= _PIECE:
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
    yield buffer.getvalue()


@plugin.command("ls")
@click.option("-a", "--all", "everything", is_flag=True, help="Also show the plugins that run in the daemon")
@click.option("-q", "--quiet", is_flag=True, help="Names only")
@click.pass_obj
def list_plugins(client: Client, everything: bool, quiet: bool) -> None:
    """List plugins."""
    rows = [
        (item["Name"], "managed", "enabled" if item["Enabled"] else "disabled", item["Config"].get("Description") or "")
        for item in client.call("GET", "/plugins")
    ]
    if everything:
        rows += [
            (item["Name"], "in-process", item["State"], item["Reason"] or item["LastError"] or item["Description"])
            for item in client.call("GET", "/engine/plugins")
        ]
    if quiet:
        for row in rows:
            click.echo(row[0])
    else:
        _table([("NAME", "KIND", "STATE", "DESCRIPTION"), *rows])


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("   ".join([*cells, row[-1]]).rstrip())


@plugin.command("inspect")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(client: Client, names: tuple[str, ...]) -> None:
    """Show all that is known of plugins, as JSON."""
    click.echo(json.dumps([_inspect(client, name) for name in names], indent=4))


def _inspect(client: Client, name: str) -> Any:
    if any(item["Name"] == name for item in client.call("GET", "/engine/plugins")):
        return client.call("GET", f"/engine/plugins/{quote(name, safe='')}")
    return client.call("GET", f"/plugins/{quote(name)}/json")


@plugin.command("rm")
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also remove an enabled plugin")
@click.pass_obj
def remove(client: Client, names: tuple[str, ...], force: bool) -> None:
    """Remove managed plugins."""
    for name in names:
        client.call("DELETE", f"/plugins/{quote(name)}?force={int(force)}")
        click.echo(name)


@plugin.command("enable")
@click.argument("name")
@click.pass_obj
def enable(client: Client, name: str) -> None:
    """Start a plugin, now and at every start of the daemon."""
    client.call("POST", f"/plugins/{quote(name)}/enable?timeout=30")
    click.echo(name)


@plugin.command("disable")
@click.argument("name")
@click.option("-f", "--force", is_flag=True, help="Also when it is in use")
@click.pass_obj
def disable(client: Client, name: str, force: bool) -> None:
    """Stop a plugin, now and at every start of the daemon."""
    client.call("POST", f"/plugins/{quote(name)}/disable?force={int(force)}")
    click.echo(name)


@plugin.command("reload")
@click.pass_obj
def reload(client: Client) -> None:
    """Look for newly installed in-process plugins, and start them."""
    for name in client.call("POST", "/engine/plugins/reload")["Started"]:
        click.echo(name)


plugin.add_command(authoring.init)
plugin.add_command(authoring.build)
