"""The filters of `GET /containers/json` and of prune."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from plugin_sdk import InvalidParameter, NotFound
from plugin_sdk.containers import ContainerRecord, ContainerStatus
from plugin_sdk.images import ImageStore
from plugin_sdk.network import Networks
from plugin_sdk.text import Filters, match_labels
from plugin_sdk.times import parse_ns, parse_until_ns

from . import endpoints

if TYPE_CHECKING:
    from .service import ContainerService

KNOWN = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
    "publish", "since", "status", "volume",
)  # fmt: skip
PRUNE = ("label", "label!", "until")

Test = Callable[[ContainerRecord], bool]

_HEALTH = ("none", "starting", "healthy", "unhealthy")
_TRUE, _FALSE = ("1", "true"), ("0", "false")
_GO_INTEGER = re.compile(r"[+-]?[0-9]+")


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
        moment = parse_until_ns(until[0])
        tests.append(lambda record: parse_ns(record.Created) < moment)
    return tests


def atoi(text: str, *, reader: str = "Atoi", least: int = -(1 << 63), most: int = (1 << 63) - 1) -> int:
    """An integer, read as strictly as dockerd does. Raises InvalidParameter in its words."""
    signed = least < 0
    if not _GO_INTEGER.fullmatch(text) or (not signed and not text.isdecimal()):
        raise InvalidParameter(f'strconv.{reader}: parsing "{text}": invalid syntax')
    # Python refuses to convert what is absurdly long.
    number = int(text) if len(text) < 40 else most + 1
    if not least <= number <= most:
        raise InvalidParameter(f'strconv.{reader}: parsing "{text}": value out of range')
    return number


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
        seen: set[str] = set()
        image_id = record.ImageID
        while image_id and image_id not in seen:
            if image_id in ids:
                return True
            seen.add(image_id)
            try:
                image = images.get(image_id)
            except NotFound:
                return False
            # Images that came from a registry name no parent: those descend that have further layers on top.
            if chains.intersection(_chain_ids(image.DiffIDs[:-1])):
                return True
            image_id = image.Parent
        return False

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
            codes.add(atoi(value))
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid filter 'exited={value}': {error}") from None
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
    if len(values) > 1 or values[0] not in _TRUE + _FALSE:
        raise InvalidParameter(f"invalid filter 'is-task=[{' '.join(sorted(values))}]'")
    wanted = values[0] in _TRUE
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
    # What has no name is known by its path on the host.
    return lambda record: any(wanted & {mount.Name or mount.Source, mount.Destination} for mount in record.Mounts)


def _ports(name: str, values: Sequence[str], ports_of: Callable[[ContainerRecord], set[tuple[int, str]]]) -> Test:
    wanted: set[tuple[int, str]] = set()
    for value in values:
        ports, _, protocol = value.partition("/")
        try:
            first, last = _port_range(ports)
        except InvalidParameter as error:
            raise InvalidParameter(f"error while looking up for {name} {value}: {error}") from None
        wanted.update((port, protocol.lower() or "tcp") for port in range(first, last + 1))
    return lambda record: bool(wanted & ports_of(record))


def _port_range(text: str) -> tuple[int, int]:
    if not text:
        raise InvalidParameter("Empty string specified for ports.")
    first, dash, last = text.partition("-")
    ends = [atoi(end, reader="ParseUint", least=0, most=65535) for end in ((first, last) if dash else (first,))]
    if ends[-1] < ends[0]:
        raise InvalidParameter(f"Invalid range specified for the Port: {text}")
    return ends[0], ends[-1]


def _shown_ports(service: ContainerService, record: ContainerRecord) -> list[dict[str, Any]]:
    """Those that ps shows: of a running container alone."""
    return endpoints.port_list(record, endpoints.of(service, record))


def _published(service: ContainerService, record: ContainerRecord) -> set[tuple[int, str]]:
    shown = _shown_ports(service, record)
    return {(port["PublicPort"], port["Type"]) for port in shown if "PublicPort" in port}


def _exposed(service: ContainerService, record: ContainerRecord) -> set[tuple[int, str]]:
    return {(port["PrivatePort"], port["Type"]) for port in _shown_ports(service, record)}
