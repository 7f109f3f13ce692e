"""Hooks of networks. The `networks` plugin calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kernel.hookspecs._markers import hookspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kernel.contracts.network import EndpointRecord, NetworkRecord


@hookspec("sync")
def engine_predefined_networks() -> Iterable[NetworkRecord]:
    """Contribute networks that always exist and cannot be removed by clients: "bridge", "host", "none".

    Called by `networks` at its restore, after all plugins have started. Id and Created are "" (they are given once and
    kept over restarts); an empty `IPAM.Config` lets the address manager choose. When a record differs from what was
    contributed at the last start, the network is made anew under the same ID, unless running containers use it. None
    contributes nothing; a plugin that raises is left out, and its failure logged.
    """
    raise NotImplementedError


@hookspec("first", deadline=2.0)
async def engine_resolve_name(network: NetworkRecord, name: str) -> Sequence[str] | None:
    """Answer a container's DNS question about a name that no endpoint of its network carries.

    `name` is lower case, without the final dot. The first answer wins: addresses, IPv4 and IPv6, or an empty list for
    "no such name"; None passes on, in the end to the host's resolvers. An exception counts as None.
    """
    raise NotImplementedError


@hookspec("notify", deadline=10.0)
async def engine_endpoint_changed(
    change: Literal["connected", "disconnected"], network: NetworkRecord, endpoint: EndpointRecord
) -> None:
    """A running container was plugged into a network, or unplugged from it, and its addresses are known.

    The return value is ignored; exceptions are logged.
    """
    raise NotImplementedError
