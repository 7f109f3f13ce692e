"""The driver gcplogs: Google's own library against a local endpoint of entries:write. Not against Google."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.receivers import Receiver

from plugin_sdk import InvalidParameter, Unavailable
from plugin_sdk.logs import LogEntry, LogInfo
from plugins.log_shipping import cloud
from plugins.log_shipping.gcplogs import GcpLogsDriver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver("google") as running:
        yield running


def client_of(receiver: Receiver) -> Callable[[str], Any]:
    def make(project: str) -> Any:
        import google.cloud.logging
        from google.auth.credentials import AnonymousCredentials

        endpoint = {"api_endpoint": f"http://127.0.0.1:{receiver.port}"}
        return google.cloud.logging.Client(
            project=project, credentials=AnonymousCredentials(), client_options=endpoint, _use_grpc=False
        )

    return make


async def test_entries(receiver: Receiver, info: Callable[..., LogInfo]) -> None:
    driver = GcpLogsDriver(client_of(receiver))
    options = {"gcp-project": "p", "gcp-log-cmd": "true", "gcp-meta-zone": "z", "gcp-meta-id": "7", "labels": "a"}
    driver.validate(options)
    container = info(options, Labels={"a": "1"})
    sink = await driver.open(container)
    lines = [LogEntry(10**18 + 123456789, 1 + number % 2, b"%d" % number) for number in range(2500)]
    await sink.write(lines)
    await sink.close()
    rows = receiver.events()
    assert [row["jsonPayload"]["message"] for row in rows] == [str(number) for number in range(2500)]
    assert rows[0]["jsonPayload"] == {
        "instance": {"zone": "z", "id": "7"},
        "container": {
            "name": "/web",
            "id": "ab" * 32,
            "imageName": "reg/app:1",
            "imageId": "sha256:" + "cd" * 32,
            "created": "2026-01-01T00:00:00Z",
            "command": "sh -c true",
            "metadata": {"a": "1"},
        },
        "message": "0",
    }
    assert rows[0]["logName"] == "projects/p/logs/gcplogs-docker-driver"
    assert rows[0]["timestamp"].startswith("2001-09-09T01:46:40.123456")
    assert (rows[0]["severity"], rows[1]["severity"]) == ("INFO", "ERROR")
    assert rows[0]["resource"] == {"type": "gce_instance", "labels": {"instance_id": "7", "zone": "z"}}
    assert len({row["insertId"] for row in rows}) == 2500
    driver.close()


async def test_what_comes_again_has_the_same_identity(receiver: Receiver, info: Callable[..., LogInfo]) -> None:
    driver = GcpLogsDriver(client_of(receiver))
    sink = await driver.open(info({"gcp-project": "p"}))
    receiver.kill()
    receiver.say(status=500)
    receiver.start()
    entries = [LogEntry(10**18, 1, b"one")]
    with pytest.raises(Unavailable, match="gcplogs: "):
        await sink.write(entries)
    batch = driver._rows["ab" * 32]
    identity = batch.records[0]["insert_id"]
    receiver.kill()
    receiver.say(status=0)
    receiver.start()
    await sink.write([*entries, LogEntry(10**18 + 1, 1, b"two")])
    rows = receiver.events()
    assert [row["jsonPayload"]["message"] for row in rows] == ["one", "two"]
    assert rows[0]["insertId"] == identity
    await asyncio.gather(sink.close(), driver.remove(info({})))
    driver.close()


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = GcpLogsDriver()
    with pytest.raises(InvalidParameter, match='"tag" is not a valid option for the gcplogs driver'):
        driver.validate({"tag": "x"})
    monkeypatch.setattr(cloud.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidParameter, match=r"pip install 'engine\[gcplogs\]'"):
        driver.validate({})
