"""The `engine` command: a group whose subcommands are entry points of group `engine.commands`, loaded when used."""

from __future__ import annotations

import importlib.metadata
import sys

import click

GROUP = "engine.commands"


class EntryPointGroup(click.Group):
    """Lists the installed commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, sorted."""
        return sorted({entry.name for entry in importlib.metadata.entry_points(group=GROUP)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        for entry in importlib.metadata.entry_points(group=GROUP, name=cmd_name):
            command = entry.load()
            if not isinstance(command, click.Command):
                raise click.ClickException(f"entry point {entry.value} is no click command")
            return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names only: a line of help each would import every plugin."""
        with formatter.section("Commands"):
            formatter.write_text("  ".join(self.list_commands(ctx)))


@click.group(cls=EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="engine")
def engine() -> None:
    """A container engine of plugins. `engine COMMAND --help` tells more."""


def main() -> None:
    """Console script."""
    sys.exit(engine(prog_name="engine"))
