"""`engine plugin`."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from plugins.plugin_admin.authoring import build, init
from plugins.plugin_admin.client import Client, ClientError
from plugins.plugin_admin.verify import verify

_PIECE = 1024 * 1024
_STDERR, _EXITED = 2, 3
_JSON = {"Content-Type": "application/json"}


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
        rows += [
            (item["Name"], "old-style", "used" if item["Address"] else "unused", item["LastError"] or item["Address"])
            for item in client.call("GET", "/engine/old-style")
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


@plugin.command("set")
@click.argument("name")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.pass_obj
def change(client: Client, name: str, changes: tuple[str, ...]) -> None:
    """Change settings of a managed plugin, which must be disabled."""
    client.call("POST", f"/plugins/{quote(name)}/set", json.dumps(changes).encode(), _JSON)


_untrusted = click.option(
    "--disable-content-trust",
    is_flag=True,
    expose_value=False,
    hidden=True,
    help="Accepted for docker's sake: nothing is signed",
)


def _granted(client: Client, remote: str, everything: bool) -> bytes:
    """What the plugin asks for, after the operator's leave."""
    asked = client.call("GET", f"/plugins/privileges?remote={quote(remote, safe='')}")
    if asked and not everything:
        click.echo(f"Plugin {remote!r} is requesting the following privileges:")
        for privilege in asked:
            click.echo(f" - {privilege['Name']}: [{' '.join(privilege['Value'])}]")
        if not click.confirm("Do you grant the above permissions?"):
            raise click.ClickException("permission denied while installing plugin " + remote)
    return json.dumps(asked or []).encode()


@plugin.command("install")
@click.argument("remote")
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE...]")
@click.option("--alias", default="", help="Name on this engine")
@click.option("--disable", is_flag=True, help="Do not enable it")
@click.option("--grant-all-permissions", "everything", is_flag=True, help="Grant what it asks for, unasked")
@_untrusted
@click.pass_obj
def install(client: Client, remote: str, changes: tuple[str, ...], alias: str, disable: bool, everything: bool) -> None:
    """Install a plugin from a registry, after showing what it may do."""
    granted = _granted(client, remote, everything)
    path = f"/plugins/pull?remote={quote(remote, safe='')}&name={quote(alias, safe='')}"
    for line in client.progress("POST", path, granted, _JSON):
        click.echo(line)
    name = alias or remote
    if changes:
        client.call("POST", f"/plugins/{quote(name)}/set", json.dumps(changes).encode(), _JSON)
    if not disable:
        client.call("POST", f"/plugins/{quote(name)}/enable?timeout=30")
    click.echo(f"Installed plugin {name}")


@plugin.command("upgrade")
@click.argument("name")
@click.argument("remote", default="")
@click.option("--grant-all-permissions", "everything", is_flag=True, help="Grant what it asks for, unasked")
@_untrusted
@click.pass_obj
def upgrade(client: Client, name: str, remote: str, everything: bool) -> None:
    """Replace a plugin by a newer version; it is put back as it was when the new one does not work."""
    remote = remote or client.call("GET", f"/plugins/{quote(name)}/json")["PluginReference"]
    granted = _granted(client, remote, everything)
    for line in client.progress(
        "POST", f"/plugins/{quote(name)}/upgrade?remote={quote(remote, safe='')}", granted, _JSON
    ):
        click.echo(line)
    click.echo(f"Upgraded plugin {name} to {remote}")


@plugin.command("push")
@click.argument("name")
@_untrusted
@click.pass_obj
def push(client: Client, name: str) -> None:
    """Push a managed plugin to the registry of its name (without credentials: use `docker plugin push` for those)."""
    for line in client.progress("POST", f"/plugins/{quote(name)}/push"):
        click.echo(line)


@plugin.command("logs")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes")
@click.option("-n", "--tail", default=-1, help="Only the newest lines")
@click.pass_obj
def logs(client: Client, name: str, follow: bool, tail: int) -> None:
    """Show what a managed plugin's process has written."""
    for piece in client.pieces("GET", f"/engine/managed/{quote(name)}/logs?follow={int(follow)}&tail={tail}"):
        click.echo(piece, nl=False)


@plugin.command("top")
@click.argument("name")
@click.pass_obj
def top(client: Client, name: str) -> None:
    """Show the processes of a managed plugin."""
    told = client.call("GET", f"/engine/managed/{quote(name)}/top")
    _table([tuple(told["Titles"]), *map(tuple, told["Processes"])])


@plugin.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("-i", "--interactive", is_flag=True, help="Send standard input to the command")
@click.option("-u", "--user", default="", help="User, as for docker exec")
@click.option("-e", "--env", multiple=True, metavar="KEY=VALUE", help="Variable for the command (repeatable)")
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def execute(
    client: Client, interactive: bool, user: str, env: tuple[str, ...], name: str, command: tuple[str, ...]
) -> None:
    """Run a command in a managed plugin; ends with the command's exit code."""
    asked = {"Cmd": command, "User": user, "Env": env, "AttachStdin": interactive}
    source = sys.stdin.buffer if interactive else None
    for stream, payload in client.converse(
        f"/engine/managed/{quote(name)}/exec", json.dumps(asked).encode(), stdin=source
    ):
        if stream == _EXITED:
            sys.exit(int(payload))
        click.echo(payload, nl=False, err=stream == _STDERR)


@plugin.command("save")
@click.argument("name")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write")
@click.pass_obj
def save(client: Client, name: str, output: Path) -> None:
    """Write a managed plugin to a file, for machines without a registry."""
    with output.open("wb") as file:
        file.writelines(client.pieces("GET", f"/engine/managed/{quote(name)}/save"))


@plugin.command("load")
@click.option(
    "-i", "--input", "source", required=True, type=click.Path(exists=True, path_type=Path), help="File to read"
)
@click.pass_obj
def load(client: Client, source: Path) -> None:
    """Make a managed plugin from a file that `save` wrote."""
    with source.open("rb") as file:
        told = client.call(
            "POST", "/engine/managed/load", iter(lambda: file.read(_PIECE), b""), {"Content-Type": "application/x-tar"}
        )
    click.echo(told["Name"])


@plugin.command("reload")
@click.pass_obj
def reload(client: Client) -> None:
    """Look for newly installed in-process plugins, and start them."""
    for name in client.call("POST", "/engine/plugins/reload")["Started"]:
        click.echo(name)


plugin.add_command(verify)
plugin.add_command(init)
plugin.add_command(build)
