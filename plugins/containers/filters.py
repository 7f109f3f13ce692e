"""The filters of `GET /containers/json` and of prune."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from plugin_sdk import InvalidParameter, NotFound
from plugin_sdk.containers import ContainerRecord, ContainerStatus
from plugin_sdk.images import ImageStore
from plugin_sdk.network import EndpointRecord, Networks
from plugin_sdk.text import Filters, match_labels
from plugin_sdk.times import parse_moment_ns, parse_ns

if TYPE_CHECKING:
    from .service import ContainerService

KNOWN = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
    "publish", "since", "status", "volume",
)  # fmt: skip
PRUNE = ("label", "label!", "until")

Test = Callable[[ContainerRecord], bool]

_HEALTH = ("none", "starting", "healthy", "unhealthy")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


def build(service: ContainerService, filters: Filters) -> tuple[list[Test], bool]:
    """What a container has to pass, and whether the filters themselves ask for stopped ones.

    Raises:
        InvalidParameter: a value that makes no sense, in Docker's words.
        NotFound: `before` or `since` name no container.
    """
    makers: dict[str, Callable[[ContainerService, Sequence[str]], Test]] = {
        "ancestor": _ancestor,
        "before": _before,
        "since": _since,
        "exited": _exited,
        "expose": lambda _, ports: _ports("expose", ports, lambda record: _exposed(service, record)),
        "publish": lambda _, ports: _ports("publish", ports, lambda record: _published(service, record)),
        "health": _health,
        "id": lambda _, values: _any_text(values, lambda record: record.Id),
        "name": _name,
        "is-task": _is_task,
        "isolation": lambda _, values: lambda record: record.HostConfig.Isolation in values,
        "label": lambda _, values: lambda record: match_labels(values, record.Config.Labels),
        "network": _network,
        "status": _status,
        "volume": _volume,
    }
    tests = [makers[name](service, values) for name, values in filters.items() if values]
    return tests, "status" in filters


def prune_tests(filters: Filters) -> list[Test]:
    """Tests of the filters of prune. Raises InvalidParameter."""
    tests: list[Test] = []
    if labels := filters.get("label"):
        tests.append(lambda record: match_labels(labels, record.Config.Labels))
    if unwanted := filters.get("label!"):
        tests.append(lambda record: not match_labels(unwanted, record.Config.Labels))
    if until := filters.get("until"):
        if len(until) > 1:
            raise InvalidParameter("more than one until filter specified")
        moment = parse_moment_ns(until[0])
        tests.append(lambda record: parse_ns(record.Created) < moment)
    return tests


def _matcher(pattern: str) -> Callable[[str], bool]:
    try:
        return re.compile(pattern).search  # type: ignore[return-value]
    except re.error:
        return lambda text: text == pattern


def _any_text(values: Sequence[str], text_of: Callable[[ContainerRecord], str]) -> Test:
    matchers = [_matcher(value) for value in values]
    return lambda record: any(match(text_of(record)) for match in matchers)


def _name(_: ContainerService, values: Sequence[str]) -> Test:
    # With and without the slash: people write `^/web$` and `^web$`.
    matchers = [_matcher(value) for value in values]
    return lambda record: any(match(record.Name) or match(f"/{record.Name}") for match in matchers)


def _ancestor(service: ContainerService, values: Sequence[str]) -> Test:
    images = service.ctx.require(ImageStore)
    ids: set[str] = set()
    chains: set[str] = set()
    for value in values:
        try:
            image = images.get(value)
        except (NotFound, InvalidParameter):
            continue
        ids.add(image.Id)
        chains.add(image.ChainID)
    chains.discard("")

    def descends(record: ContainerRecord) -> bool:
        if record.ImageID in ids:
            return True
        try:
            diff_ids = images.get(record.ImageID).DiffIDs
        except NotFound:
            return False
        return bool(chains.intersection(_chain_ids(diff_ids)))

    return descends


def _chain_ids(diff_ids: Sequence[str]) -> list[str]:
    from hashlib import sha256

    chains: list[str] = []
    for diff_id in diff_ids:
        chains.append(f"sha256:{sha256(f'{chains[-1]} {diff_id}'.encode()).hexdigest()}" if chains else diff_id)
    return chains


def _before(service: ContainerService, values: Sequence[str]) -> Test:
    moments = [parse_ns(service.get(value).Created) for value in values]
    return lambda record: parse_ns(record.Created) < min(moments)


def _since(service: ContainerService, values: Sequence[str]) -> Test:
    moments = [parse_ns(service.get(value).Created) for value in values]
    return lambda record: parse_ns(record.Created) > max(moments)


def _exited(_: ContainerService, values: Sequence[str]) -> Test:
    codes = set()
    for value in values:
        try:
            codes.add(int(value))
        except ValueError:
            raise InvalidParameter(
                f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
            ) from None
    return lambda record: not record.State.running and bool(record.State.StartedAt) and record.State.ExitCode in codes


def _status(_: ContainerService, values: Sequence[str]) -> Test:
    for value in values:
        if value not in list(ContainerStatus):
            raise InvalidParameter(f"invalid filter 'status={value}'")
    return lambda record: record.State.Status in values


def _health(_: ContainerService, values: Sequence[str]) -> Test:
    for value in values:
        if value not in _HEALTH:
            raise InvalidParameter(f"unrecognized filter value for health: {value}")
    return lambda record: (record.State.Health or {}).get("Status", "none") in values


def _is_task(_: ContainerService, values: Sequence[str]) -> Test:
    value = values[0].lower()
    if value not in _TRUE + _FALSE:
        raise InvalidParameter(f"invalid filter 'is-task=[{' '.join(values)}]'")
    wanted = value in _TRUE
    return lambda record: ("com.docker.swarm.task.id" in record.Config.Labels) is wanted


def _network(service: ContainerService, values: Sequence[str]) -> Test:
    networks = service.ctx.find(Networks)
    ids = set()
    for value in values if networks is not None else ():
        try:
            ids.add(networks.get(value).Id)  # type: ignore[union-attr]
        except (NotFound, InvalidParameter):
            continue
    return lambda record: networks is not None and any(e.NetworkID in ids for e in networks.endpoints(record.Id))


def _volume(_: ContainerService, values: Sequence[str]) -> Test:
    wanted = set(values)
    return lambda record: any(wanted & {mount.Name, mount.Destination} for mount in record.Mounts)


def _ports(name: str, values: Sequence[str], ports_of: Callable[[ContainerRecord], set[tuple[int, str]]]) -> Test:
    wanted: set[tuple[int, str]] = set()
    for value in values:
        ports, _, protocol = value.partition("/")
        first, _, last = ports.partition("-")
        try:
            ends = int(first), int(last or first)
        except ValueError:
            bad = first if not first.isdecimal() else last
            raise InvalidParameter(
                f'error while looking up for {name} {value}: strconv.ParseUint: parsing "{bad}": invalid syntax'
            ) from None
        if not 0 <= ends[0] <= ends[1] <= 65535:
            raise InvalidParameter(f"error while looking up for {name} {value}: invalid port range")
        wanted.update((port, protocol or "tcp") for port in range(ends[0], ends[1] + 1))
    return lambda record: bool(wanted & ports_of(record))


def _endpoints(service: ContainerService, record: ContainerRecord) -> Sequence[EndpointRecord]:
    networks = service.ctx.find(Networks)
    return networks.endpoints(record.Id) if networks is not None and record.State.running else ()


def _published(service: ContainerService, record: ContainerRecord) -> set[tuple[int, str]]:
    return {(port.HostPort, port.Proto) for e in _endpoints(service, record) for port in e.Ports if port.HostPort}


def _exposed(service: ContainerService, record: ContainerRecord) -> set[tuple[int, str]]:
    found = {(port.Port, port.Proto) for e in _endpoints(service, record) for port in e.Ports}
    for text in record.Config.ExposedPorts:
        port, _, protocol = text.partition("/")
        if port.isdecimal():
            found.add((int(port), protocol or "tcp"))
    return found
