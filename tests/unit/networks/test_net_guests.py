"""Networks lent to managed plugins: for as long as a run, over restarts of the daemon, and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin_sdk import InvalidParameter, Unavailable
from plugin_sdk.containers import Preparation

from .conftest import World, container


def preparation(world: World) -> Preparation:
    return Preparation(world.root / "bundle" / "guest", world.root / "rootfs")


GUEST = container("bridge", "me-plugin")


@pytest.fixture
async def ready(world: World) -> World:
    await world.networks.restore()
    return world


async def lend(world: World) -> Preparation:
    made = preparation(world)
    await world.networks.lend(GUEST, made)
    return made


async def test_what_a_guest_gets(ready: World) -> None:
    made = await lend(ready)
    assert made.netns == ready.networks.sandbox(GUEST.Id)
    assert ready.networks.endpoints(GUEST.Id)[0].IPv4Address == "172.17.0.2/16"
    assert sorted(mount.destination for mount in made.mounts) == ["/etc/hosts", "/etc/resolv.conf"]
    assert all("ro" in mount.options and Path(mount.source).is_file() for mount in made.mounts)
    bridge = ready.networks.get("bridge")
    assert [str(holder) for holder in ready.networks.users(bridge.Id)] == ["plugin me-plugin (running)"]


async def test_the_hosts_own_network(ready: World) -> None:
    made = preparation(ready)
    await ready.networks.lend(container("host", "me-plugin"), made)
    assert made.netns is None
    assert sorted(mount.destination for mount in made.mounts) == ["/etc/hosts", "/etc/resolv.conf"]


@pytest.mark.parametrize("mode", ["", "container:x", "mine"])
async def test_other_modes_are_refused(ready: World, mode: str) -> None:
    with pytest.raises(InvalidParameter, match="want one of bridge, none, host"):
        await ready.networks.lend(container(mode), preparation(ready))


async def test_taken_back_whole_and_twice(ready: World) -> None:
    made = await lend(ready)
    for _ in range(2):
        await ready.networks.take_back(GUEST.Id)
    assert ready.networks.endpoints(GUEST.Id) == ()
    assert made.netns is not None
    assert not made.netns.exists()
    assert (await ready.ipam.request_address("172.17.0.0/16", "172.17.0.2", {})) == "172.17.0.2/16"


async def test_a_new_run_gives_the_old_ones_back_first(ready: World) -> None:
    first, second = await lend(ready), await lend(ready)
    assert first.netns is not None
    assert second.netns is not None
    assert ("delete_endpoint", GUEST.Id) in ready.bridge.calls
    assert list(ready.pool.folder.iterdir()) == [second.netns]
    assert ready.networks.endpoints(GUEST.Id)[0].IPv4Address == "172.17.0.2/16"


async def test_a_failure_leaves_nothing(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise Unavailable("no room")

    monkeypatch.setattr(ready.bridge, "join", fail)
    with pytest.raises(Unavailable, match="no room"):
        await lend(ready)
    assert ready.networks.endpoints(GUEST.Id) == ()
    assert list(ready.pool.folder.iterdir()) == []
    assert await ready.networks.keep(GUEST.Id) is False


@pytest.mark.parametrize("before_restore", [True, False])
async def test_kept_over_a_restart(ready: World, before_restore: bool) -> None:
    made = await lend(ready)
    await ready.killed_and_started()
    if before_restore:
        assert await ready.networks.keep(GUEST.Id)
    await ready.networks.restore()
    assert ready.bridge.restored == [GUEST.Id], "the driver keeps its interface"
    if not before_restore:
        assert await ready.networks.keep(GUEST.Id)
    await ready.networks.guests.drop_unclaimed()
    assert ready.networks.sandbox(GUEST.Id) == made.netns
    assert made.netns is not None
    assert made.netns.exists()
    other = container("bridge")
    await ready.run(other)
    assert ready.networks.endpoints(other.Id)[0].IPv4Address == "172.17.0.3/16", "the address is the guest's"


async def test_what_nobody_claims_is_taken_back(ready: World) -> None:
    made = await lend(ready)
    await ready.killed_and_started()
    await ready.networks.restore()
    assert made.netns is not None
    assert made.netns.exists(), "it may still be claimed"
    await ready.networks.guests.drop_unclaimed()
    assert not made.netns.exists()
    assert await ready.networks.keep(GUEST.Id) is False
    await ready.base.attachments.flush()
    await ready.killed_and_started()
    assert ready.networks.endpoints(GUEST.Id) == ()


async def test_nothing_is_left_of_it_after_a_boot(ready: World) -> None:
    made = await lend(ready)
    assert made.netns is not None
    made.netns.unlink()
    await ready.killed_and_started()
    assert await ready.networks.keep(GUEST.Id) is False
