"""The commands `engine run` and `engine ps`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from docker import APIClient

_UNUSABLE = 125
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127


def _client() -> APIClient:
    import docker
    from docker.errors import DockerException

    try:
        return docker.APIClient(**docker.utils.kwargs_from_env(), timeout=300)
    except DockerException as error:
        raise click.ClickException(f"cannot reach the engine ($DOCKER_HOST says where it is): {error}") from None


def _pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"want KEY=VALUE, got {value!r}", param_hint=option)
        pairs[key] = text
    return pairs


def _port_bindings(published: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    from docker.utils.ports import split_port

    exposed: dict[str, Any] = {}
    bindings: dict[str, Any] = {}
    for spec in published:
        try:
            inside, outside = split_port(spec)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--publish") from None
        for index, port in enumerate(inside):
            key = port if "/" in port else f"{port}/tcp"
            host = outside[index] if outside else None
            address, number = host if isinstance(host, tuple) else (None, host)
            exposed[key] = {}
            bindings.setdefault(key, []).append({"HostIp": address or "", "HostPort": str(number or "")})
    return exposed, bindings


def _restart_rule(text: str) -> dict[str, Any]:
    name, _, count = text.partition(":")
    if count and not count.isdecimal():
        raise click.BadParameter("maximum retry count must be a number", param_hint="--restart")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _memory(text: str) -> int:
    from docker.errors import DockerException
    from docker.utils import parse_bytes

    try:
        return int(parse_bytes(text)) if text else 0
    except DockerException as error:
        raise click.BadParameter(str(error), param_hint="--memory") from None


def _body(options: dict[str, Any]) -> dict[str, Any]:
    """Body of the create request."""
    exposed, bindings = _port_bindings(options["publish"])
    detach, interactive = options["detach"], options["interactive"]
    tmpfs = {path: rest for path, _, rest in (entry.partition(":") for entry in options["tmpfs"])}
    return {
        "Image": options["image"],
        "Cmd": list(options["command"]) or None,
        "Entrypoint": [options["entrypoint"]] if options["entrypoint"] else None,
        "Env": list(options["env"]),
        "Labels": {key: value for key, _, value in (entry.partition("=") for entry in options["label"])},
        "Hostname": options["hostname"],
        "User": options["user"],
        "WorkingDir": options["workdir"],
        "StopSignal": options["stop_signal"],
        "StopTimeout": options["stop_timeout"],
        "Tty": options["tty"],
        "OpenStdin": interactive,
        "StdinOnce": interactive and not detach,
        "AttachStdin": interactive and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "ExposedPorts": exposed,
        "HostConfig": {
            "AutoRemove": options["rm"],
            "Binds": list(options["volume"]),
            "Tmpfs": tmpfs,
            "NetworkMode": options["network"],
            "PortBindings": bindings,
            "RestartPolicy": _restart_rule(options["restart"]),
            "Memory": _memory(options["memory"]),
            "NanoCpus": int(options["cpus"] * 10**9),
            "Privileged": options["privileged"],
            "ReadonlyRootfs": options["read_only"],
            "Init": options["init"] or None,
            "CapAdd": list(options["cap_add"]),
            "CapDrop": list(options["cap_drop"]),
            "Runtime": options["runtime"],
            "LogConfig": {"Type": options["log_driver"], "Config": _pairs(options["log_opt"], "--log-opt")},
        },
    }


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--cap-add", multiple=True, metavar="CAP", help="Add a capability.")
@click.option("--cap-drop", multiple=True, metavar="CAP", help="Drop a capability.")
@click.option("--cpus", type=float, default=0.0, help="Number of CPUs.")
@click.option("-d", "--detach", is_flag=True, help="Leave it running and print its ID.")
@click.option("--entrypoint", default="", help="Instead of the image's entrypoint.")
@click.option("-e", "--env", multiple=True, metavar="KEY=VALUE", help="Environment variable.")
@click.option("-h", "--hostname", default="", help="Host name inside.")
@click.option("--init", is_flag=True, help="Run an init that reaps processes and forwards signals.")
@click.option("-i", "--interactive", is_flag=True, help="Keep standard input open.")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="Label.")
@click.option("--log-driver", default="", help="Where the output is kept.")
@click.option("--log-opt", multiple=True, metavar="KEY=VALUE", help="Option of the log driver.")
@click.option("-m", "--memory", default="", metavar="SIZE", help="Memory limit, for example 64m.")
@click.option("--name", default="", help="Name of the container.")
@click.option("--network", "--net", default="", help="Network: a name, bridge, host, none or container:NAME.")
@click.option("--privileged", is_flag=True, help="All capabilities and devices.")
@click.option("-p", "--publish", multiple=True, metavar="[IP:][HOST:]PORT", help="Publish a port.")
@click.option("--read-only", is_flag=True, help="Mount the root file system read-only.")
@click.option("--restart", default="no", metavar="POLICY", help="no, on-failure[:N], always or unless-stopped.")
@click.option("--rm", is_flag=True, help="Remove it when it has ended.")
@click.option("--runtime", default="", help="Runtime.")
@click.option("--stop-signal", default="", help="Signal that ends it.")
@click.option("--stop-timeout", type=int, default=None, help="Seconds until it is killed.")
@click.option("--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="Mount a tmpfs.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="User inside.")
@click.option("-v", "--volume", multiple=True, metavar="SOURCE:PATH[:MODE]", help="Mount a volume or a host path.")
@click.option("-w", "--workdir", default="", help="Working directory.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(**options: Any) -> None:
    """Create a container from IMAGE and run COMMAND in it."""
    from docker.errors import APIError

    from .terminal import Session

    client = _client()
    try:
        made = client.create_container_from_config(_body(options), options["name"] or None)
    except APIError as error:
        _fail(error.explanation or str(error), _UNUSABLE)
    for warning in made.get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)
    try:
        if options["detach"]:
            client.start(made["Id"])
            click.echo(made["Id"])
            return
        session = Session(client, made["Id"], tty=options["tty"], stdin=options["interactive"], rm=options["rm"])
        sys.exit(session.run())
    except APIError as error:
        reason = error.explanation or str(error)
        _fail(reason, _start_code(reason))


def _start_code(reason: str) -> int:
    if "executable file not found" in reason or "no such file or directory" in reason:
        return _NOT_FOUND
    return _NOT_EXECUTABLE if "permission denied" in reason or "is a directory" in reason else _UNUSABLE


def _fail(reason: str, code: int) -> None:
    click.echo(f"engine: {reason}", err=True)
    sys.exit(code)


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Those that do not run too.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="For example status=exited.")
@click.option("-n", "--last", type=int, default=-1, help="The last N that were created, whatever their state.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing short.")
@click.option("-q", "--quiet", is_flag=True, help="IDs only.")
@click.option("-s", "--size", is_flag=True, help="Show how much they have written.")
def ps(everything: bool, filters: tuple[str, ...], last: int, no_trunc: bool, quiet: bool, size: bool) -> None:
    """List containers."""
    from docker.errors import APIError

    wanted: dict[str, list[str]] = {}
    for entry in filters:
        key, equals, value = entry.partition("=")
        if not equals:
            raise click.BadParameter(f"want KEY=VALUE, got {entry!r}", param_hint="--filter")
        wanted.setdefault(key, []).append(value)
    try:
        found = _client().containers(all=everything, limit=last, filters=wanted, size=size)
    except APIError as error:
        raise click.ClickException(error.explanation or str(error)) from None
    if quiet:
        for item in found:
            click.echo(item["Id"] if no_trunc else item["Id"][:12])
        return
    from .tables import container_rows, table

    click.echo(table(container_rows(found, no_trunc=no_trunc, size=size)))
