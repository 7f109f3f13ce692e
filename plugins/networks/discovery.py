"""Name servers of the sandboxes that have one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plugin_sdk import EngineError, PluginContext, Unavailable
from plugin_sdk.aio import blocking
from plugin_sdk.network import EndpointRecord
from plugins.networks.dns import Resolver, SandboxDns, load, open_sockets
from plugins.networks.names import NameTable, View


class Discovery:
    """The table of names, and a server in each sandbox that is on a user-defined network."""

    def __init__(self, ctx: PluginContext) -> None:
        self._ctx = ctx
        self.names = NameTable()
        self._resolver = Resolver(self.names, self._ask_plugins)
        self._servers: dict[str, SandboxDns] = {}
        self._expected = False

    def expect_questions(self) -> None:
        """Load what answers them, in the background: its import takes 50 ms and 12 MB, and not every engine needs it."""
        if not self._expected:
            self._expected = True
            self._ctx.spawn(blocking(load), name="load the name server")

    async def serve(self, container_id: str, sandbox: Path, view: View) -> bool:
        """Serve this view in the sandbox from now on; gives True when there was no server in it before.

        Raises Unavailable when the sandbox or nftables cannot be used.
        """
        server = self._servers.get(container_id)
        if server is not None:
            server.view = view
            return False
        self.expect_questions()
        try:
            udp, tcp = await blocking(open_sockets, sandbox)
        except (OSError, EngineError) as error:
            raise Unavailable(f"cannot start the name server of a network sandbox: {error}") from None
        server = SandboxDns(self._resolver, view, udp, tcp)
        self._servers[container_id] = server
        await server.start()
        return True

    def moved(self, before: EndpointRecord, after: EndpointRecord) -> None:
        """An endpoint's names changed."""
        self.names.remove(before)
        self.names.add(after)

    def stop(self, container_id: str) -> None:
        """Close a sandbox's server; none is fine."""
        server = self._servers.pop(container_id, None)
        if server is not None:
            server.close()

    def close(self) -> None:
        """Close them all; containers have no name service until the next start."""
        for container_id in list(self._servers):
            self.stop(container_id)

    async def _ask_plugins(self, view: View, name: str) -> Sequence[str] | None:
        for network in view.networks.values():
            try:
                found = await self._ctx.hooks.first("engine_resolve_name", network=network, name=name)
            except EngineError as error:
                self._ctx.log.debug("name %s on network %s: %s", name, network.Name, error)
                continue
            if found is not None:
                answer: Sequence[str] = found[1]
                return answer
        return None
