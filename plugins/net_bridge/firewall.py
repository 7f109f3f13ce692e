"""Keeps the engine's nftables tables equal to what its networks ask for, one atomic transaction per change."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from plugin_sdk import EngineError
from plugin_sdk.nft import NftError, nft
from plugins.net_bridge import ruleset
from plugins.net_bridge.ruleset import BridgeRules, PortRules


@dataclass(slots=True)
class _Wanted:
    bridges: dict[str, BridgeRules] = field(default_factory=dict)
    ports: dict[str, Sequence[PortRules]] = field(default_factory=dict)


class Firewall:
    """Its methods block (0.1 ms), are safe to call from several threads, and are idempotent.

    Args:
        table: name of the tables.
        families: "ip" and "ip6", those that are managed at all.
    """

    def __init__(self, table: str, families: Sequence[str]) -> None:
        self.table, self._families = table, tuple(families)
        self._wanted = _Wanted()
        self._lock = threading.Lock()

    def start(self, bridges: Sequence[BridgeRules], ports: dict[str, Sequence[PortRules]]) -> None:
        """Take over what is wanted and make it so, in one transaction; tables of an earlier run are replaced.

        Raises EngineError when nftables cannot be used.
        """
        with self._lock:
            self._wanted = _Wanted({bridge.name: bridge for bridge in bridges}, dict(ports))
            self._rebuild()
            unmanaged = [family for family in ruleset.FAMILIES if family not in self._families]
            if unmanaged:
                _try(ruleset.nothing(self.table, unmanaged))

    def rebuild(self) -> None:
        """Make the tables anew, after somebody else has changed or flushed them."""
        with self._lock:
            self._rebuild()

    def clear(self) -> None:
        """Remove the tables."""
        with self._lock:
            if self._families:
                _try(ruleset.nothing(self.table, self._families))

    def set_bridge(self, bridge: BridgeRules) -> None:
        """Add or change a bridge's rules."""
        with self._lock:
            old = self._wanted.bridges.get(bridge.name)
            if old == bridge:
                return
            self._wanted.bridges[bridge.name] = bridge
            if old is None:
                self._apply(ruleset.bridge_elements("add", self.table, self._families, bridge))
            else:
                self._rebuild()

    def drop_bridge(self, name: str) -> None:
        """Remove a bridge's rules."""
        with self._lock:
            old = self._wanted.bridges.pop(name, None)
            if old is not None:
                self._apply(ruleset.bridge_elements("delete", self.table, self._families, old))

    def set_ports(self, owner: str, ports: Sequence[PortRules]) -> None:
        """An endpoint's published ports; [] removes them."""
        with self._lock:
            old = self._wanted.ports.pop(owner, ())
            if ports:
                self._wanted.ports[owner] = list(ports)
            gone = [port for port in old if port not in ports]
            fresh = [port for port in ports if port not in old]
            commands = [
                ruleset.port_elements("delete", self.table, self._families, gone),
                ruleset.port_elements("add", self.table, self._families, fresh),
            ]
            self._apply("\n".join(command for command in commands if command))

    def _apply(self, commands: str) -> None:
        if not commands.strip():
            return
        try:
            nft(commands)
        except NftError:
            # The tables are not what we left (flushed by somebody, perhaps a moment ago): make them whole instead.
            self._rebuild()

    def _rebuild(self) -> None:
        if not self._families:
            return
        ports = [port for group in self._wanted.ports.values() for port in group]
        try:
            nft(ruleset.whole(self.table, self._families, list(self._wanted.bridges.values()), ports))
        except NftError as error:
            raise EngineError(f"the firewall cannot be set up with nftables: {error}") from None


def _try(commands: str) -> None:
    try:
        nft(commands)
    except NftError as error:
        raise EngineError(f"the firewall cannot be cleared: {error}") from None
