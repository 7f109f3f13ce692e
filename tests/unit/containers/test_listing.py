"""`ps` and `inspect`: filters, words and shapes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from plugin_sdk import InvalidParameter, NotFound
from plugins.containers.inspection import inspect
from plugins.containers.listing import Listing


async def _names(world: Any, *, all: bool = True, limit: int = 0, **wanted: list[str]) -> list[str]:
    found = json.loads(await Listing(world.service).json(all=all, limit=limit, wanted=wanted))
    return [item["Names"][0] for item in found]


@pytest.fixture
async def three(world: Any) -> Any:
    await world.make("one", Labels={"a": "1", "b": ""})
    two = await world.make("two", Labels={"a": "2"}, ExposedPorts={"80/tcp": {}})
    await world.make("three")
    await world.service.start("one")
    await world.service.start("two")
    await world.ctx.runtime.finish(two.Id, 5)
    return world


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, ["/three", "/two", "/one"]),
        ({"status": ["exited"]}, ["/two"]),
        ({"status": ["created", "running"]}, ["/three", "/one"]),
        ({"exited": ["5"]}, ["/two"]),
        ({"exited": ["0"]}, []),
        ({"label": ["a"]}, ["/two", "/one"]),
        ({"label": ["a=1", "b"]}, ["/one"]),
        ({"name": ["t"]}, ["/three", "/two"]),
        ({"name": ["^/one$"]}, ["/one"]),
        ({"name": ["^two$"]}, ["/two"]),
        ({"before": ["two"]}, ["/one"]),
        ({"since": ["two"]}, ["/three"]),
        ({"expose": ["80"]}, []),  # of running containers alone, as with dockerd
        ({"health": ["none"]}, ["/three", "/two", "/one"]),
        ({"is-task": ["true"]}, []),
        ({"ancestor": ["busybox"]}, ["/three", "/two", "/one"]),
        ({"ancestor": ["other"]}, []),
        ({"volume": ["/data"]}, []),
    ],
)
async def test_filters(three: Any, wanted: dict[str, list[str]], names: list[str]) -> None:
    assert await _names(three, **wanted) == names


async def test_only_running_without_all(three: Any) -> None:
    assert await _names(three, all=False) == ["/one"]
    assert await _names(three, all=False, limit=2) == ["/three", "/two"]
    assert await _names(three, all=False, status=["exited"]) == ["/two"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"status": ["foo"]}, "invalid filter 'status=foo'"),
        ({"exited": ["x"]}, "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax"),
        ({"health": ["x"]}, "unrecognized filter value for health: x"),
        ({"is-task": ["x"]}, "invalid filter 'is-task=[x]'"),
        (
            {"publish": ["x"]},
            'error while looking up for publish x: strconv.ParseUint: parsing "x": invalid syntax',
        ),
    ],
)
async def test_bad_filters(three: Any, wanted: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InvalidParameter, match=re.escape(message)):
        await _names(three, **wanted)


async def test_filter_by_an_unknown_container(three: Any) -> None:
    with pytest.raises(NotFound, match="No such container: nope"):
        await _names(three, before=["nope"])


async def test_summary(three: Any) -> None:
    listing = Listing(three.service)
    found = json.loads(await listing.json(all=True, size=True, wanted={}))
    words = [item["Status"] for item in found]
    assert words == ["Created", "Exited (5) Less than a second ago", "Up Less than a second"]
    summary = found[1]
    assert summary["Image"] == "busybox"
    assert summary["Command"] == "sh"
    assert (summary["SizeRw"], summary["SizeRootFs"]) == (7, 107)
    assert (summary["State"], summary["HostConfig"]) == ("exited", {"NetworkMode": "bridge"})
    del three.ctx.images.images["busybox"]
    assert json.loads(await listing.json(all=True, wanted={}))[0]["Image"] == "sha256:aa"


async def test_command_of_ps_quotes_arguments_with_spaces(world: Any) -> None:
    await world.make("job", Cmd=["sh", "-c", "exit 3"])
    assert json.loads(await Listing(world.service).json(all=True, wanted={}))[0]["Command"] == "sh -c 'exit 3'"


async def test_inspect(world: Any) -> None:
    record = await world.make("job", Cmd=["sh", "-c", "exit 3"], Env=["A=b"], HostConfig={"Memory": 64 << 20})
    seen = await inspect(world.service, record, size=True)
    assert (seen["Path"], seen["Args"], seen["Name"]) == ("sh", ["-c", "exit 3"], "/job")
    assert seen["Config"]["Hostname"] == record.Id[:12]
    assert (seen["Config"]["Env"], seen["Config"]["Entrypoint"]) == (["A=b"], None)
    assert "Healthcheck" not in seen["Config"]
    assert seen["State"]["StartedAt"] == "0001-01-01T00:00:00Z"
    assert (seen["HostConfig"]["Memory"], seen["HostConfig"]["Binds"]) == (64 << 20, None)
    assert seen["HostConfig"]["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert (seen["SizeRw"], seen["GraphDriver"]["Name"]) == (7, "stub")
    assert seen["State"]["Running"] is False
