"""`--change` of commit and import: the Dockerfile instructions that only alter an image's configuration.

`words`, `expand` and `assignments` read Dockerfile text for others too. Messages are dockerd's.
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kernel.contracts.container_config import ContainerConfig, HealthConfig
from kernel.errors import InvalidParameter
from plugin_sdk.times import parse_duration_ns

DEFAULT_SHELL = ("/bin/sh", "-c")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]|[*#@!?-]")
_PORT = re.compile(r"(\d+)(?:-(\d+))?$")
_HEALTH_FLAG = re.compile(r"--([a-z-]+)=(\S*)(?:\s+|$)")
_HEALTH_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def apply_changes(config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
    """A configuration with instructions applied in order.

    Args:
        changes: such as `CMD ["sh"]`, `ENV a=b`; one string may hold several lines.

    Raises:
        InvalidParameter: with dockerd's message, for example "FOO is not a valid change command".
    """
    cmd_set = False
    found = instructions("\n".join(changes))
    if changes and not found:
        raise InvalidParameter("file with no instructions")
    for name, rest in found:
        handler = _HANDLERS.get(name)
        if handler is None:
            raise InvalidParameter(f"{name} is not a valid change command")
        update = handler(config, rest)
        if name == "ENTRYPOINT" and not cmd_set:
            update["Cmd"] = None  # an entrypoint makes the inherited command meaningless
        cmd_set = cmd_set or name == "CMD"
        config = config.model_copy(update=update)
    return config


def instructions(text: str) -> list[tuple[str, str]]:
    """(upper-case instruction, rest) of each logical line: continuations joined, comments and blank lines left out."""
    found: list[tuple[str, str]] = []
    pending = ""
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.endswith("\\"):
            pending += stripped[:-1]
            continue
        found.append(_split(pending + stripped))
        pending = ""
    if pending.strip():
        found.append(_split(pending.strip()))
    return found


def _split(line: str) -> tuple[str, str]:
    parts = line.split(None, 1)
    return parts[0].upper(), parts[1].strip() if len(parts) > 1 else ""


def words(text: str) -> list[str]:
    """Split at blanks outside of quotes; quotes and backslashes stay."""
    found: list[str] = []
    word, quote = "", ""
    position = 0
    while position < len(text):
        sign = text[position]
        if sign == "\\" and quote != "'" and position + 1 < len(text):
            word += text[position : position + 2]
            position += 2
            continue
        if sign.isspace() and not quote:
            if word:
                found.append(word)
            word = ""
        else:
            if sign in "\"'":
                quote = "" if quote == sign else quote or sign
            word += sign
        position += 1
    return [*found, word] if word else found


def expand(text: str, env: Mapping[str, str]) -> str:
    """Take quotes and backslashes away and put variables in: `$a`, `${a}`, `${a:-default}`, `${a:+instead}`.

    Raises InvalidParameter for an unfinished quote or brace.
    """
    result, _ = _expand(text, 0, env, "")
    return result


def _expand(text: str, position: int, env: Mapping[str, str], until: str) -> tuple[str, int]:
    out: list[str] = []
    double = False
    while position < len(text):
        sign = text[position]
        if sign == until and not double:
            return "".join(out), position + 1
        if sign == "'" and not double:
            end = text.find("'", position + 1)
            if end < 0:
                raise InvalidParameter("unexpected end of statement while looking for matching single-quote")
            out.append(text[position + 1 : end])
            position = end + 1
        elif sign == '"':
            double = not double
            position += 1
        elif sign == "\\" and position + 1 < len(text):
            following = text[position + 1]
            out.append(following if not double or following in '"$\\' else sign + following)
            position += 2
        elif sign == "$":
            value, position = _variable(text, position + 1, env)
            out.append(value)
        else:
            out.append(sign)
            position += 1
    if double:
        raise InvalidParameter("unexpected end of statement while looking for matching double-quote")
    if until:
        raise InvalidParameter("syntax error: missing '}'")
    return "".join(out), position


def _variable(text: str, position: int, env: Mapping[str, str]) -> tuple[str, int]:
    braced = text[position : position + 1] == "{"
    found = _NAME.match(text, position + braced)
    if not found:
        if braced:
            raise InvalidParameter("syntax error: bad substitution")
        return "$", position
    value, position = env.get(found.group()), found.end()
    if not braced:
        return value or "", position
    operator = text[position : position + 2]
    if operator[:1] == "}":
        return value or "", position + 1
    if operator not in (":-", ":+") and operator[:1] not in ("-", "+"):
        raise InvalidParameter(f"unsupported modifier ({operator}) in substitution")
    needs_text = operator[0] == ":"
    word, position = _expand(text, position + 1 + needs_text, env, "}")
    present = bool(value) if needs_text else value is not None
    if operator[-1 if needs_text else 0] == "-":
        return (value or "") if present else word, position
    return word if present else "", position


def assignments(instruction: str, text: str, env: Mapping[str, str]) -> list[tuple[str, str]]:
    """`a=b "c d"=e`, or the old form `name value with blanks`. Raises InvalidParameter."""
    parts = words(text)
    if not parts:
        raise InvalidParameter(f"{instruction} requires at least one argument")
    if "=" not in parts[0]:
        value = text[len(parts[0]) :].strip()
        if not value:
            raise InvalidParameter(f"{instruction} must have two arguments")
        return [(expand(parts[0], env), expand(value, env))]
    found = []
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise InvalidParameter(f'Syntax error - can\'t find = in "{part}". Must be of the form: name=value')
        name = expand(name, env)
        if not name:
            raise InvalidParameter(f"{instruction} names can not be blank")
        found.append((name, expand(value, env)))
    return found


def exec_form(text: str) -> list[str] | None:
    """The list of a JSON form, None for the shell form."""
    if not text.startswith("["):
        return None
    try:
        parsed = json.loads(text)
    except ValueError:
        return None
    return parsed if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed) else None


def expose(specs: Iterable[str]) -> list[str]:
    """`80`, `53/udp`, `8000-8002/tcp` as single ports: `80/tcp`. Raises InvalidParameter."""
    ports = []
    for spec in specs:
        numbers, _, protocol = spec.rpartition(":")[2].partition("/")
        protocol = protocol.lower() or "tcp"
        if protocol not in ("tcp", "udp", "sctp"):
            raise InvalidParameter(f"Invalid proto: {protocol}")
        found = _PORT.match(numbers)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last <= 65535:
            raise InvalidParameter(f"Invalid containerPort: {numbers}")
        ports += [f"{port}/{protocol}" for port in range(first, last + 1)]
    return ports


def valid_signal(text: str) -> bool:
    """A signal's number, or its name with or without SIG (`RTMIN+3` too)."""
    if text.isdecimal():
        return 0 < int(text) <= signal.SIGRTMAX
    name = text.upper().removeprefix("SIG")
    found = re.fullmatch(r"RTMIN(?:\+(\d+))?|RTMAX(?:-(\d+))?", name)
    if found:
        return int(found[1] or found[2] or 0) <= signal.SIGRTMAX - signal.SIGRTMIN
    return f"SIG{name}" in signal.Signals.__members__


def _env(config: ContainerConfig) -> dict[str, str]:
    return {name: value for name, _, value in (entry.partition("=") for entry in config.Env)}


def _required(instruction: str, text: str, count: str = "at least one argument") -> None:
    if not text:
        raise InvalidParameter(f"{instruction} requires {count}")


def _command(config: ContainerConfig, text: str) -> list[str]:
    listed = exec_form(text)
    if listed is not None:
        return listed
    return [*(config.Shell or DEFAULT_SHELL), text] if text else []


def _cmd(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"Cmd": _command(config, text)}


def _entrypoint(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"Entrypoint": _command(config, text)}


def _environment(config: ContainerConfig, text: str) -> dict[str, Any]:
    merged = _env(config)
    merged.update(assignments("ENV", text, merged))
    return {"Env": [f"{name}={value}" for name, value in merged.items()]}


def _label(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"Labels": config.Labels | dict(assignments("LABEL", text, _env(config)))}


def _expose(config: ContainerConfig, text: str) -> dict[str, Any]:
    _required("EXPOSE", text)
    ports = expose(expand(word, _env(config)) for word in words(text))
    return {"ExposedPorts": config.ExposedPorts | {port: {} for port in ports}}


def _user(config: ContainerConfig, text: str) -> dict[str, Any]:
    _required("USER", text, "exactly one argument")
    return {"User": expand(text, _env(config))}


def _volume(config: ContainerConfig, text: str) -> dict[str, Any]:
    _required("VOLUME", text)
    listed = exec_form(text)
    paths = [expand(word, _env(config)).strip() for word in (words(text) if listed is None else listed)]
    if not all(paths):
        raise InvalidParameter("VOLUME specified can not be an empty string")
    return {"Volumes": config.Volumes | {path: {} for path in paths}}


def _workdir(config: ContainerConfig, text: str) -> dict[str, Any]:
    _required("WORKDIR", text, "exactly one argument")
    joined = posixpath.join("/", config.WorkingDir, expand(text, _env(config)))
    return {"WorkingDir": "/" + posixpath.normpath(joined).lstrip("/")}


def _stopsignal(config: ContainerConfig, text: str) -> dict[str, Any]:
    _required("STOPSIGNAL", text, "exactly one argument")
    name = expand(text, _env(config))
    if not valid_signal(name):
        raise InvalidParameter(f"invalid signal: {name}")
    return {"StopSignal": name}


def _onbuild(config: ContainerConfig, text: str) -> dict[str, Any]:
    _required("ONBUILD", text)
    trigger = text.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise InvalidParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
    return {"OnBuild": [*config.OnBuild, text]}


def _healthcheck(config: ContainerConfig, text: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    while found := _HEALTH_FLAG.match(text):
        flag, value = found.groups()
        text = text[found.end() :]
        if flag == "retries":
            if not re.fullmatch(r"-?\d+", value):
                raise InvalidParameter(f'strconv.ParseInt: parsing "{value}": invalid syntax')
            if int(value) < 0:
                raise InvalidParameter(f"--retries cannot be negative ({value})")
            settings["Retries"] = int(value)
        elif flag in _HEALTH_TIMES:
            settings[_HEALTH_TIMES[flag]] = _health_time(flag, value)
        else:
            raise InvalidParameter(f"unknown flag: {flag}")
    _required("HEALTHCHECK", text)
    kind, _, command = text.partition(" ")
    if kind.upper() == "NONE":
        if settings or command.strip():
            raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        return {"Healthcheck": HealthConfig(Test=["NONE"])}
    if kind.upper() != "CMD":
        raise InvalidParameter(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    command = command.strip()
    if not command:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    listed = exec_form(command)
    test = ["CMD-SHELL", command] if listed is None else ["CMD", *listed]
    return {"Healthcheck": HealthConfig(Test=test, **settings)}


def _health_time(flag: str, value: str) -> int:
    if re.fullmatch(r"[1-9]\d*", value):
        raise InvalidParameter(f'time: missing unit in duration "{value}"')
    nanoseconds = parse_duration_ns(value)
    if nanoseconds < 0:
        raise InvalidParameter(f'Interval "{flag}" cannot be negative')
    if 0 < nanoseconds < 10**6:
        raise InvalidParameter(f'Interval "{flag}" cannot be less than 1ms')
    return nanoseconds


_HANDLERS: dict[str, Callable[[ContainerConfig, str], dict[str, Any]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _environment,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
