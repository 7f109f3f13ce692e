"""What could not be given back because a driver's plugin did not answer: kept, and tried again.

Without it a container whose network plugin is dead could neither end nor be removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from plugin_sdk import Collection, EngineError, NotFound, PluginContext, PluginError, Unavailable, Wire
from plugin_sdk.network import EndpointRecord
from plugins.networks.records import StoredNetwork

DELAYS = (2.0, 10.0, 60.0, 300.0)
"""Seconds between tries; the last one stays."""


class Failure(NamedTuple):
    """Something that a driver did not take back.

    Attributes:
        addresses: the address manager did not; else the network driver.
        address: which one (CIDR), of an endpoint.
    """

    addresses: bool
    error: EngineError
    address: str = ""

    @property
    def passing(self) -> bool:
        """Another try makes sense: the plugin did not say no, it said nothing that counts."""
        return isinstance(self.error, Unavailable | PluginError | NotFound)


class Debt(Wire):
    """One endpoint, or one whole network, that is still to be given back.

    Attributes:
        Id: of the endpoint, or of the network.
        Driver: the network driver has not taken it back.
        Addresses: the IPAM driver has not.
    """

    Id: str
    Network: StoredNetwork
    Endpoint: EndpointRecord | None = None
    Driver: bool = False
    Addresses: bool = False

    @property
    def title(self) -> str:
        """For people."""
        return (
            f"endpoint {self.Id[:12]} of network {self.Network.Name}"
            if self.Endpoint
            else f"network {self.Network.Name}"
        )

    def left(self, failures: Sequence[Failure]) -> Debt:
        """The debt after a try with these failures."""
        held = {failure.address for failure in failures if failure.passing and failure.addresses}
        endpoint = self.Endpoint
        if endpoint is not None:
            # Somebody else may have by now what was given back.
            told = {"IPv4Address": endpoint.IPv4Address, "IPv6Address": endpoint.IPv6Address}
            endpoint = endpoint.model_copy(update={key: text if text in held else "" for key, text in told.items()})
        return self.model_copy(
            update={
                "Endpoint": endpoint,
                "Driver": any(failure.passing and not failure.addresses for failure in failures),
                "Addresses": bool(held),
            }
        )


Pay = Callable[[Debt], Awaitable[Sequence[Failure]]]


class Debts:
    """All debts. `pay` is set by whoever can talk to the drivers."""

    pay: Pay

    def __init__(self, ctx: PluginContext) -> None:
        self._ctx = ctx
        self._store: Collection[Debt] = ctx.state.collection("debts", Debt, key=lambda debt: debt.Id)
        self._paying: dict[str, asyncio.Task[None]] = {}
        self._trying: set[str] = set()

    async def owe(self, debt: Debt, failures: Sequence[Failure]) -> None:
        """Log what failed, and keep what another try can mend. Durable when it returns."""
        for failure in failures:
            self._ctx.log.warning("%s: %s", debt.title, failure.error)
        debt = debt.left(failures)
        if debt.Driver or debt.Addresses:
            await self._store.put(debt)
            self._begin(debt, DELAYS[0])
        elif self._store.get(debt.Id) is not None:
            await self._store.delete(debt.Id)

    async def owe_later(self, debt: Debt) -> None:
        """Keep all of it, and begin to give it back in the background. Durable when it returns."""
        debt = debt.model_copy(update={"Driver": True, "Addresses": True})
        await self._store.put(debt)
        self._begin(debt, 0.0)

    def concern(self, name: str) -> bool:
        """Something is owed to the driver of that name."""
        return any(name in _names(debt) for debt in self._store.values())

    async def due(self, name: str) -> None:
        """The driver is there: try now, once; what fails again is tried later as before."""
        for debt in self._store.values():
            if name in _names(debt):
                await self._try(debt)

    async def forget_network(self, network_id: str) -> None:
        """The network is gone, with all that was on it."""
        for debt in self._store.values():
            if debt.Network.Id == network_id and debt.Endpoint is not None:
                # An address manager that does not know its pool any more knows no address of it either.
                await self._store.delete(debt.Id)

    def restore(self) -> None:
        """After a start: go on trying."""
        for debt in self._store.values():
            self._begin(debt, 0.0)

    def _begin(self, debt: Debt, delay: float) -> None:
        if debt.Id not in self._paying:
            task = self._ctx.spawn(self._keep_trying(debt.Id, delay), name=f"give back {debt.title}")
            self._paying[debt.Id] = task
            task.add_done_callback(lambda _: self._paying.pop(debt.Id, None))

    async def _keep_trying(self, key: str, delay: float) -> None:
        tries = 0
        while True:
            await asyncio.sleep(delay)
            debt = self._store.get(key)
            if debt is None or await self._try(debt):
                return
            delay = DELAYS[min(tries, len(DELAYS) - 1)]
            tries += 1

    async def _try(self, debt: Debt) -> bool:
        # Given back twice at once, an address could be taken from the one who has got it in between.
        if debt.Id in self._trying:
            return False
        self._trying.add(debt.Id)
        try:
            return await self._try_alone(debt)
        finally:
            self._trying.discard(debt.Id)

    async def _try_alone(self, debt: Debt) -> bool:
        failures = await self.pay(debt)
        rest = debt.left(failures)
        if self._store.get(debt.Id) is None:
            return True
        if rest.Driver or rest.Addresses:
            self._ctx.log.debug("%s: still not given back: %s", debt.title, failures[0].error)
            await self._store.put(rest)
            return False
        for failure in failures:
            self._ctx.log.warning("%s: %s", debt.title, failure.error)
        await self._store.delete(debt.Id)
        self._ctx.log.info("%s: given back after all", debt.title)
        return True


def _names(debt: Debt) -> set[str]:
    names = {debt.Network.Driver} if debt.Driver else set()
    return names | ({debt.Network.IPAM.Driver} if debt.Addresses else set())
