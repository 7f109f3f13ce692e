"""Networks lent to what is no container of the `Containers` service: managed plugins."""

from __future__ import annotations

from pathlib import Path

from plugin_sdk import EngineError, InvalidParameter
from plugin_sdk.containers import ContainerRecord, Preparation
from plugin_sdk.managed import ManagedPlugins
from plugins.networks.base import Base, name_of
from plugins.networks.records import Attachment
from plugins.networks.runs import Runs
from plugins.networks.sandbox import alive
from plugins.networks.wanted import wanted_of

MODES = ("bridge", "none", "host")


class Guests:
    """Lends, and takes back. A guest's attachment is marked (`Attachment.Guest`) and lasts as long as the loan."""

    def __init__(self, base: Base, runs: Runs) -> None:
        self._base, self._runs = base, runs
        self._claimed: set[str] = set()

    async def lend(self, guest: ContainerRecord, preparation: Preparation) -> None:
        """See `Networks.lend`. Raises InvalidParameter for another mode, and what the drivers raise."""
        base = self._base
        mode = guest.HostConfig.NetworkMode
        if mode not in MODES:
            raise InvalidParameter(f"{name_of(guest)} cannot have the network {mode!r}: want one of {', '.join(MODES)}")
        await self.take_back(guest.Id)
        self._claimed.add(guest.Id)
        wanted = wanted_of(mode, guest.Config, guest.Networking, base.objects)
        base.attachments.keep(Attachment(ContainerID=guest.Id, ContainerName=name_of(guest), Wanted=wanted, Guest=True))
        try:
            await self._runs.prepare(guest, preparation)
        except BaseException:
            self._drop(guest.Id)
            raise

    def keep(self, guest_id: str) -> bool:
        """See `Networks.keep`."""
        attachment = self._base.attachments.get(guest_id)
        if attachment is None or not attachment.Guest or not still_there(attachment):
            return False
        self._claimed.add(guest_id)
        return True

    async def take_back(self, guest_id: str) -> None:
        """See `Networks.take_back`."""
        attachment = self._base.attachments.get(guest_id)
        if attachment is not None and attachment.Guest:
            await self._runs.release(guest_id)
            self._drop(guest_id)

    async def drop_unclaimed(self) -> None:
        """All guests that could claim what they have had their turn: the others are gone."""
        managed = self._base.ctx.find(ManagedPlugins)
        # One that is enabled is being adopted or started anew, and claims or gives back in its own time.
        coming = {plugin.Id for plugin in managed.list() if plugin.Enabled} if managed is not None else set()
        for attachment in self._base.attachments.all():
            if attachment.Guest and attachment.ContainerID not in self._claimed | coming:
                name = attachment.ContainerName or attachment.ContainerID[:12]
                self._base.ctx.log.info("networks lent to %s, which no longer runs, are taken back", name)
                try:
                    await self.take_back(attachment.ContainerID)
                except EngineError as error:
                    self._base.ctx.log.warning("networks lent to %s: %s", name, error)

    def _drop(self, guest_id: str) -> None:
        self._claimed.discard(guest_id)
        self._base.attachments.forget(guest_id)


def still_there(attachment: Attachment) -> bool:
    """What the attachment names has outlived the time since it was stored: a boot of the machine takes it away."""
    if attachment.Sandbox:
        return alive(Path(attachment.Sandbox))
    return bool(attachment.Files) and Path(attachment.Files).is_dir()
