"""Networks as the API shows them, and the filters of its list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from plugin_sdk import InvalidParameter
from plugin_sdk.network import EndpointRecord
from plugin_sdk.text import Filters, match_labels
from plugins.networks.records import StoredNetwork

LIST_FILTERS = ("driver", "id", "label", "name", "scope", "type", "dangling")


_IPV4_SHOWN_SINCE = (1, 47)


def show(network: StoredNetwork, endpoints: Sequence[EndpointRecord], version: tuple[int, int]) -> dict[str, Any]:
    """A network in the API's shape of a version; `endpoints` are those plugged into it."""
    document = {
        "Name": network.Name,
        "Id": network.Id,
        "Created": network.Created,
        "Scope": network.Scope,
        "Driver": network.Driver,
        "EnableIPv4": network.EnableIPv4,
        "EnableIPv6": network.EnableIPv6,
        "IPAM": {
            "Driver": network.IPAM.Driver or "default",
            "Options": network.IPAM.Options or (None if network.Predefined else {}),
            "Config": [_pool(pool.model_dump()) for pool in network.IPAM.Config],
        },
        "Internal": network.Internal,
        "Attachable": network.Attachable,
        "Ingress": network.Ingress,
        "ConfigFrom": {"Network": network.ConfigFrom},
        "ConfigOnly": network.ConfigOnly,
        "Containers": {endpoint.ContainerID: _container(endpoint) for endpoint in endpoints},
        "Options": network.Options,
        "Labels": network.Labels,
    }
    if version < _IPV4_SHOWN_SINCE:
        del document["EnableIPv4"]
    return document


def matches(network: StoredNetwork, filters: Filters, in_use: bool) -> bool:
    """A network passes all filters: values of one are alternatives, labels must all hold."""
    facts = {"driver": network.Driver, "scope": network.Scope}
    if any(name in filters and facts[name] not in filters[name] for name in facts):
        return False
    for name, value in (("id", network.Id), ("name", network.Name)):
        if name in filters and not any(_fits(wanted, value) for wanted in filters[name]):
            return False
    if "type" in filters and ("builtin" if network.Predefined else "custom") not in filters["type"]:
        return False
    if "dangling" in filters:
        dangling = not in_use and not network.Predefined
        if dangling not in [_truth(value) for value in filters["dangling"]]:
            return False
    return match_labels(filters.get("label", []), network.Labels)


def _fits(wanted: str, value: str) -> bool:
    """`wanted` is a regular expression, or, where it is none, the whole value."""
    try:
        return re.search(wanted, value) is not None
    except re.error:
        return wanted == value


def check_filters(filters: Filters) -> None:
    """Values that make no sense. Raises InvalidParameter."""
    for value in filters.get("type", []):
        if value not in ("builtin", "custom"):
            raise InvalidParameter(f"invalid filter: 'type'='{value}'")
    for value in filters.get("dangling", []):
        _truth(value)


def _truth(value: str) -> bool:
    if value.lower() in ("1", "true", "t"):
        return True
    if value.lower() in ("0", "false", "f"):
        return False
    raise InvalidParameter(f"invalid filter 'dangling=[{value}]'")


def _pool(pool: dict[str, Any]) -> dict[str, Any]:
    pool.pop("PoolID")
    return {name: value for name, value in pool.items() if value}


def _container(endpoint: EndpointRecord) -> dict[str, str]:
    return {
        "Name": endpoint.ContainerName.removeprefix("/"),
        "EndpointID": endpoint.Id,
        "MacAddress": endpoint.MacAddress,
        "IPv4Address": endpoint.IPv4Address,
        "IPv6Address": endpoint.IPv6Address,
    }
