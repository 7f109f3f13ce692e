"""Takes out of answers what differs by nature between two engines, two runs, two hosts or two versions of the CLI."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

ZERO_TIME = "0001-01-01T00:00:00Z"
ABSENT = "<absent>"


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be known of an engine and its host.

    Attributes:
        root: its data root.
        host: its host's name.
        cgroup: version of its control groups, 1 or 2.
        apparmor: its host has AppArmor.
    """

    root: str
    host: str
    cgroup: int
    apparmor: bool

    @classmethod
    def of(cls, info: dict[str, Any]) -> Facts:
        """From the answer to `GET /info`."""
        security = " ".join(info["SecurityOptions"] or [])
        return cls(info["DockerRootDir"], info["Name"], int(info["CgroupVersion"]), "apparmor" in security)


_PATTERNS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), marker)
    for pattern, marker in (
        (r"sha256:[0-9a-f]{64}\b", "<DIGEST>"),
        (r"\bsha256:[0-9a-f]{12}\b", "<DIGEST12>"),
        (r"\b[0-9a-f]{64}\b", "<ID>"),
        (r"\b[0-9a-f]{12}\b", "<ID12>"),
        (r"(?!0001)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<TIME>"),
        (r"(?!0001)\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} [A-Z]+", "<TIME>"),
        (r"(About an? (minute|hour)|Less than a second|\d+ (second|minute|hour|day|week|month|year)s?) ago", "<AGO>"),
        (r"Up (About an? (minute|hour)|Less than a second|\d+ (second|minute|hour)s?)", "Up <AGE>"),
        (r"\b172\.(1[6-9]|2\d|3[01])\.\d+\.\d+\b|\b192\.168\.\d+\.\d+\b", "<IP>"),
        (r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "<MAC>"),
        (r"(?<=<IP>)/\d+", "/<LEN>"),
        (r"(?<=[\d\]]:)(3[2-9]\d{3}|[4-6]\d{4})\b", "<PORT>"),
        (r"\bexecDuration=\d+", "execDuration=<N>"),
        (r"to \d+\.00, as there are only \d+ CPUs", "to <CPUS>, as there are only <CPUS> CPUs"),
        (r"(?<=available: )[\d,-]+", "<SET>"),
        (r"\b(runc|crun) (?=create failed)", "<RUNTIME> "),
        (r"\(virtual [\d.]+[kM]?B\)", "(virtual <SIZE>)"),
    )
]
# What the CLI adds of its own, which its versions say in different ways.
_FOOTER = re.compile(r"\n*(See '[^\n]*--help'\.?|Run '[^\n]*--help' for more information)\n*", re.M)
_FULL_STOP = re.compile(r"^(docker: .*)\.$", re.M)
_OLD_PREFIX = re.compile(r"^Error: (?=No such |Failed to |Cannot )", re.M)

_TABLES = {"ps", "images", "top", "stats", "history", "port", "df", "ls", "list"}
"""Subcommands that print columns, whose width follows from what is normalised."""

_BY_KEY: dict[str, str] = {
    "Pid": "<PID>",
    "SandboxID": "<ID>",
    "SandboxKey": "<PATH>",
    "LogPath": "<PATH>",
    "HostnamePath": "<PATH>",
    "HostsPath": "<PATH>",
    "ResolvConfPath": "<PATH>",
    "Size": "<SIZE>",
    "VirtualSize": "<SIZE>",
    "SizeRootFs": "<SIZE>",
    "LastTagTime": "<TIME>",
    "MergedDir": "<PATH>",
    "UpperDir": "<PATH>",
    "LowerDir": "<PATH>",
    "WorkDir": "<PATH>",
}
"""Values of these keys are markers, unless they are empty or zero."""


class Normaliser:
    """Normalises the answers of one engine to one scenario; what the scenario's own text has stays as it is."""

    def __init__(self, facts: Facts, text: str, folder: str) -> None:
        self._facts = facts
        self._text = text
        self._folder = folder

    def text(self, text: str) -> str:
        """Any text."""
        text = text.replace(self._folder, "<FOLDER>").replace(self._facts.root, "<ROOT>")
        for pattern, marker in _PATTERNS:
            text = pattern.sub(lambda found, marker=marker: self._kept(found, marker), text)  # type: ignore[misc]
        return text

    def _kept(self, found: re.Match[str], marker: str) -> str:
        return found[0] if found[0] in self._text else marker

    def output(self, text: str, words: tuple[str, ...], *, sort: bool) -> list[str]:
        """Standard output of the CLI, as lines."""
        if words[0] == "top":
            text = re.sub(r"(?m)^\d+ ", "<PID> ", text)
        if words[0] == "ps":
            text = re.sub(r"\b[0-9a-f]{14}…", "<ID14>…", text)
        lines = self.text(text).split("\n")
        if lines and lines[-1] == "":
            lines.pop()
        if _TABLES & set(words[:2]):
            lines = [re.sub(r" {2,}", "  ", line).rstrip() for line in lines]
        return sorted(lines) if sort else lines

    def errors(self, text: str) -> list[str]:
        """Standard error of the CLI, as lines."""
        text = _FOOTER.sub("\n", text)
        text = _OLD_PREFIX.sub("Error response from daemon: ", _FULL_STOP.sub(r"\1", text))
        # Lines of the CLI's own log come and go.
        return [line for line in self.text(text).split("\n") if line and not line.startswith('time="')]

    def value(self, value: Any, key: str = "") -> Any:
        """A JSON value."""
        if key in _BY_KEY and value not in (0, "", None) and not isinstance(value, dict | list):
            return _BY_KEY[key]
        match value:
            case dict():
                if isinstance(value.get("Created"), int):
                    value = value | {"Created": "<TIME>"}
                if "Titles" in value and "Processes" in value:
                    value = value | {
                        "Processes": [["<PID>" if w.isdecimal() else w for w in p] for p in value["Processes"]]
                    }
                return {self.text(k): self._host(k, self.value(v, k)) for k, v in value.items()}
            case list():
                items = [self.value(each, key) for each in value]
                # The reference keeps ports in a map.
                return sorted(items, key=repr) if key == "Ports" else items
            case str():
                return self.text(value)
        return value

    def _host(self, key: str, value: Any) -> Any:
        """Defaults that follow the host, as the transcript has them: control groups of version 1, no AppArmor."""
        if self._facts.cgroup == 2:
            if key == "CgroupnsMode" and value == "private" and "--cgroupns" not in self._text:
                return "host"
            if key == "OomKillDisable" and value is None:
                return False
        if key == "AppArmorProfile" and self._facts.apparmor and value == "docker-default":
            return ""
        return value


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by path, as `/HostConfig/Memory`. Lists are leaves, but for the list of mounts, whose order means nothing."""
    if path in ("/HostConfig/Binds", "/Config/Env") and value:
        value = sorted(value)  # the CLI now and then sends them in another order
    if path == "/Mounts" and isinstance(value, list) and value:
        value = {mount["Destination"]: mount for mount in value}
    if not isinstance(value, dict) or not value:
        return {path or "/": value}
    leaves: dict[str, Any] = {}
    for key, inner in value.items():
        leaves |= flatten(inner, f"{path}/{key}")
    return leaves
