"""Lives beside somebody else's FORWARD policy of DROP. Blocking.

A packet must be accepted by every base chain of the forward hook, so our own "accept" does not help against a
FORWARD chain of iptables whose policy is drop (an earlier dockerd, ufw, a hand-made firewall). There we add two rules per
bridge to the front of that chain; who may really reach a container is still decided by our own table. Such rules do not
come back by themselves when their owner flushes the chain: they are checked whenever a bridge is made or restored.
"""

from __future__ import annotations

import re
from pathlib import Path

from plugin_sdk.aio import run_blocking
from plugin_sdk.nft import NftError, nft

_LEGACY = {
    "ip": ("iptables-legacy", "/proc/net/ip_tables_names"),
    "ip6": ("ip6tables-legacy", "/proc/net/ip6_tables_names"),
}


def open_forward(bridge: str, families: tuple[str, ...]) -> list[str]:
    """Let this bridge's traffic pass foreign FORWARD chains that drop by policy; gives the names of those changed."""
    changed = []
    for family in families:
        chain = _nft_chain(family)
        if chain and "policy drop" in chain:
            commands = [
                f'insert rule {family} filter FORWARD {match} "{bridge}" counter accept'
                for match in ("iifname", "oifname")
                if not re.search(rf'{match} "{re.escape(bridge)}" counter .*accept', chain)
            ]
            if commands:
                nft("\n".join(commands))
                changed.append(f"{family} filter FORWARD")
        changed += _open_legacy(family, bridge)
    return changed


def close_forward(bridge: str, families: tuple[str, ...]) -> None:
    """Undo."""
    for family in families:
        chain = _nft_chain(family, handles=True) or ""
        handles = re.findall(rf'[io]ifname "{re.escape(bridge)}" counter .*accept # handle (\d+)', chain)
        if handles:
            nft("\n".join(f"delete rule {family} filter FORWARD handle {handle}" for handle in handles))
        if _legacy_active(family):
            for flag in ("-i", "-o"):
                run_blocking([_LEGACY[family][0], "-w", "5", "-D", "FORWARD", flag, bridge, "-j", "ACCEPT"], timeout=10)


def _nft_chain(family: str, *, handles: bool = False) -> str:
    if handles:
        done = run_blocking(["nft", "-a", "list", "chain", family, "filter", "FORWARD"], timeout=10)
        return done.stdout.decode(errors="replace") if done.code == 0 else ""
    try:
        return nft(f"list chain {family} filter FORWARD")
    except NftError:
        return ""


def _open_legacy(family: str, bridge: str) -> list[str]:
    if not _legacy_active(family):
        return []
    program = _LEGACY[family][0]
    if b"-P FORWARD DROP" not in run_blocking([program, "-w", "5", "-S", "FORWARD"], timeout=10).stdout:
        return []
    for flag in ("-i", "-o"):
        rule = ["FORWARD", flag, bridge, "-j", "ACCEPT"]
        if run_blocking([program, "-w", "5", "-C", *rule], timeout=10).code:
            run_blocking([program, "-w", "5", "-I", *rule], timeout=10)
    return [f"{program} FORWARD"]


def _legacy_active(family: str) -> bool:
    try:
        return "filter" in Path(_LEGACY[family][1]).read_text().split()
    except OSError:
        return False
