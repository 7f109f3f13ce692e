"""`engine plugin verify`: does a plugin keep what the contracts ask for?"""

from __future__ import annotations

import json
import secrets
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import click

from plugins.plugin_admin.client import Client, ClientError

_PIECE = 1 << 20
_WORDS = {"holds": "holds", "broken": "BROKEN", "does not apply": "n/a"}


class _Printer:
    """Prints results as they come, and counts them."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._heading = ""
        self.counts: dict[str, int] = {}

    def show(self, result: dict[str, Any]) -> None:
        """One result."""
        self.counts[result["Outcome"]] = self.counts.get(result["Outcome"], 0) + 1
        if self._json:
            click.echo(json.dumps(result))
            return
        heading = f"{result['Kit']} of {result['Subject']}"
        if heading != self._heading:
            click.echo(f"{heading}:")
            self._heading = heading
        click.echo(f"  {_WORDS[result['Outcome']]:<7} {result['Check']}: {result['Claim']}")
        if result["Detail"]:
            click.echo(f"          {result['Detail']}")
        if result["Outcome"] == "broken":
            click.echo(f"          see {result['Says']}")

    def end(self) -> int:
        """The last line; gives the exit code."""
        held, broken, other = (self.counts.get(word, 0) for word in _WORDS)
        if not self._json:
            click.echo(f"{held + broken + other} claims: {held} hold, {broken} broken, {other} do not apply")
        return 1 if broken else 0


@click.command("verify")
@click.argument("target", metavar="DIR|NAME")
@click.option(
    "--opt", "options", multiple=True, metavar="KEY=VALUE", help="Option for the volumes, logs and networks made"
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Setting of the plugin in DIR")
@click.option("--check", "checks", multiple=True, metavar="NAME", help="Run only this check (repeatable)")
@click.option("--timeout", default=30, show_default=True, help="Seconds until the plugin in DIR must answer")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per check")
@click.pass_context
def verify(
    ctx: click.Context,
    target: str,
    options: tuple[str, ...],
    settings: tuple[str, ...],
    checks: tuple[str, ...],
    timeout: int,
    as_json: bool,
) -> None:
    """Run the conformance kits against a plugin, in whatever language it is written.

    DIR holds config.json and rootfs/: it is looked at, made a plugin for the time of the test, and removed. NAME is an
    enabled plugin: what it already keeps is not touched. Exit code 1 when something does not hold.
    """
    client: Client = ctx.obj
    printer = _Printer(as_json=as_json)
    asked = {"Options": dict(_pair(text) for text in options), "Checks": list(checks)}
    folder = Path(target)
    if (folder / "config.json").exists():
        _folder(client, folder, [_pair(text) and text for text in settings], timeout, asked, printer)
    elif folder.is_dir():
        raise click.ClickException(f"{folder} has no config.json")
    else:
        _plugin(client, target, asked, printer)
    ctx.exit(printer.end())


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r}: want KEY=VALUE")
    return key, value


def _plugin(client: Client, name: str, asked: dict[str, Any], printer: _Printer) -> None:
    headers = {"Content-Type": "application/json"}
    path = f"/engine/plugins/{quote(name)}/verify"
    told = False
    for line in client.lines("POST", path, json.dumps(asked).encode(), headers):
        result = json.loads(line)
        if "Counts" in result:
            told = True
        else:
            printer.show(result)
    if not told:
        raise ClientError("the engine broke off the verification: its log says why")


def _folder(
    client: Client, folder: Path, settings: list[str], timeout: int, asked: dict[str, Any], printer: _Printer
) -> None:
    from plugin_sdk.testing import bundle

    for result in bundle.check(folder):
        printer.show({key.title(): value for key, value in asdict(result).items()})
        if result.outcome == "broken":
            return
    name = f"verify/{secrets.token_hex(6)}:latest"
    headers = {"Content-Type": "application/json"}
    with tempfile.TemporaryFile() as archive:
        _pack(folder, archive)
        client.call(
            "POST",
            f"/plugins/create?name={quote(name, safe='')}",
            _pieces(archive),
            {"Content-Type": "application/x-tar"},
        )
    try:
        if settings:
            client.call("POST", f"/plugins/{quote(name)}/set", json.dumps(settings).encode(), headers)
        try:
            client.call("POST", f"/plugins/{quote(name)}/enable?timeout={timeout}")
        except ClientError as error:
            printer.show(_started(folder, "broken", str(error)))
            return
        printer.show(_started(folder, "holds", ""))
        try:
            _plugin(client, name, asked, printer)
        except ClientError as error:
            if "nothing that a conformance kit is about" not in str(error):
                raise
            printer.show(
                _started(folder, "does not apply", str(error), check="kits", claim="it has what a kit is about")
            )
    finally:
        client.call("DELETE", f"/plugins/{quote(name)}?force=1")


def _started(
    folder: Path, outcome: str, detail: str, *, check: str = "starts", claim: str = "it starts, and answers in time"
) -> dict[str, Any]:
    says = "Plugin Config Version 1 of Plugin V2: interface.socket."
    return {"Kit": "managed plugin", "Subject": str(folder), "Check": check, "Claim": claim, "Says": says,
            "Outcome": outcome, "Detail": detail, "Seconds": 0.0}  # fmt: skip


def _pack(folder: Path, archive: BinaryIO) -> None:
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("config.json", "rootfs"):
            tar.add(folder / name, arcname=name)
    archive.seek(0)


def _pieces(archive: BinaryIO) -> Iterator[bytes]:
    while piece := archive.read(_PIECE):
        yield piece
