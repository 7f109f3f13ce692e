"""`engine daemon`: the command line is made of the settings of the plugins that are installed."""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from kernel.config import KERNEL, Config, KernelSettings, Option, combine, options
from kernel.discovery import Found, discover
from kernel.errors import EngineError, InvalidParameter

DEFAULT_CONFIG = Path("/etc/docker/daemon.json")
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


class DaemonCommand(click.Command):
    """A command whose options are found out when they are first needed: it has to import the plugins for that."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._options: list[Option] | None = None
        self.found: Sequence[Found] = ()

    @property
    def known(self) -> list[Option]:
        """The options of kernel and plugins."""
        if self._options is None:
            self.found = discover(blocked=_blocked(sys.argv))
            plugins = [item.plugin for item in self.found if item.plugin is not None]
            models = {plugin.meta.name: plugin.meta.settings for plugin in plugins if plugin.meta.settings is not None}
            self._options = options({KERNEL: KernelSettings, **models})
        return self._options

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """See click; dockerd's options, so `--flag`, `--flag=false` and `--flag false` all work for a boolean."""
        own = super().get_params(ctx)
        return [*own, *(_parameter(option, index) for index, option in enumerate(self.known))]


def _parameter(option: Option, index: int) -> click.Option:
    names = [f"option_{index}", option.flag, *([option.short] if option.short else [])]
    help_text = option.help + (" (accepted and ignored)" if option.ignored else "")
    if option.boolean:
        return click.Option(names, is_flag=False, flag_value="true", default=None, metavar="[=BOOL]", help=help_text)
    metavar = option.metavar or ("KEY=VALUE" if option.mapping else "TEXT")
    return click.Option(names, multiple=option.repeatable, default=None, metavar=metavar, help=help_text)


def _blocked(argv: Sequence[str]) -> set[str]:
    """Names given with --block-plugin, before there is a parser: their code is not to be run at all."""
    names = {word.partition("=")[2] for word in argv if word.startswith("--block-plugin=")}
    return names | {value for word, value in itertools.pairwise(argv) if word == "--block-plugin"}


def _said(known: Sequence[Option], given: Mapping[str, Any]) -> dict[Option, Any]:
    said: dict[Option, Any] = {}
    for index, option in enumerate(known):
        value = given.get(f"option_{index}")
        if value is None or value == ():
            continue
        if option.mapping:
            pairs = [item.partition("=") for item in value]
            if bad := next((name for name, equals, _ in pairs if not equals), None):
                raise InvalidParameter(f"invalid value for {option.flag}: want KEY=VALUE, got {bad!r}")
            value = {name: item for name, _, item in pairs}
        said[option] = list(value) if isinstance(value, tuple) else value
    return said


@click.command(cls=DaemonCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--config-file", type=click.Path(path_type=Path), help=f"Configuration file (default {DEFAULT_CONFIG})")
@click.option("--validate", is_flag=True, help="Check the configuration and exit")
@click.version_option(package_name="engine", message="Docker version %(version)s, build engine")
@click.pass_context
def daemon(ctx: click.Context, /, config_file: Path | None, validate: bool, **given: Any) -> None:
    """Run the engine in the foreground. Options and the keys of the configuration file are dockerd's."""
    command = ctx.command
    assert isinstance(command, DaemonCommand)

    def read() -> Config:
        file = config_file or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
        names = [item.name for item in command.found]
        config = combine(_said(command.known, given), file, command.known, names)
        for item in command.found:
            if item.plugin is not None:
                config.settings(item.plugin.meta)
        return config

    try:
        config = read()
        if validate:
            click.echo("configuration OK")
            return
        if os.geteuid() != 0:
            raise EngineError("the daemon needs to be started as root")
        _run(config, command.found, read)
    except EngineError as error:
        click.echo(f"failed to start daemon: {error}", err=True)
        ctx.exit(1)


def _run(config: Config, found: Sequence[Found], read: Any) -> None:
    import uvloop

    from kernel.boot import alone, run

    _log_to_stderr(config)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for warning in config.warnings:
        logging.getLogger("engine").warning("%s", warning)
    os.umask(0o022)
    with (
        alone(config.kernel.data_root, config.kernel.pidfile),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(run(config, found, read))


class _Logfmt(logging.Formatter):
    """`time="..." level=info msg="..." logger=engine.x`, or the same as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        level = record.levelname.lower()
        if self._json:
            return json.dumps({"time": moment, "level": level, "msg": message, "logger": record.name})
        return f'time="{moment}" level={level} msg={json.dumps(message, ensure_ascii=False)} logger={record.name}'


def _log_to_stderr(config: Config) -> None:
    settings = config.kernel
    if settings.log_level not in LEVELS:
        raise InvalidParameter(f"invalid logging level: {settings.log_level!r}; want one of {', '.join(LEVELS)}")
    if settings.log_format not in ("text", "json"):
        raise InvalidParameter(f"invalid log format: {settings.log_format!r}; want text or json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Logfmt(as_json=settings.log_format == "json"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("engine").setLevel(logging.DEBUG if settings.debug else LEVELS[settings.log_level])
