"""Receivers that hang, daemons that are killed, drivers that are replaced, removals with a receiver away."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Client, Engine, eventually
from harness.receivers import Receiver

pytestmark = pytest.mark.real


def options(receiver: Receiver, *more: str) -> list[str]:
    opts = [f"fluentd-address=127.0.0.1:{receiver.port}", *more]
    return ["--log-driver", "fluentd", *(word for option in opts for word in ("--log-opt", option))]


def numbers(receiver: Receiver) -> list[int]:
    return [int(row["record"]["log"]) for row in receiver.events()]


def test_a_receiver_that_hangs_is_in_nobodys_way(engine: Client) -> None:
    with Receiver("forward", engine.netns) as receiver:
        receiver.signal(signal.SIGSTOP)
        name = engine.name()
        begun = time.monotonic()
        engine.docker("run", "--name", name, *options(receiver), engine.image, "seq", "1", "30000")
        assert time.monotonic() - begun < 10
        assert len(engine.docker("logs", name).stdout.splitlines()) == 30_000
        begun = time.monotonic()
        for command in (["ps", "-a"], ["inspect", name], ["run", "--rm", "--log-driver", "none", engine.image, "true"]):
            engine.docker(*command)
        assert time.monotonic() - begun < 5
        receiver.signal(signal.SIGCONT)
        eventually(lambda: len(receiver.events()) >= 30_000, timeout=30)
        assert numbers(receiver) == list(range(1, 30_001))
        engine.docker("rm", "-f", name)


def test_a_removal_waits_for_no_receiver(engine: Client) -> None:
    with Receiver("forward", engine.netns) as receiver:
        receiver.kill()
        begun, mark = time.monotonic(), engine.mark()
        engine.docker("run", "--rm", *options(receiver), engine.image, "echo", "lost")
        assert time.monotonic() - begun < 4
        eventually(
            lambda: "bytes were not taken by the log driver before the container was removed" in engine.log(mark)
        )


def test_a_daemon_that_is_killed_loses_nothing(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    with Receiver("forward", engine.netns) as receiver:
        script = "n=0; while [ $n -lt 3000 ]; do n=$((n+1)); echo $n; [ $((n % 100)) = 0 ] && sleep 0.1; done"
        opts = options(receiver, "fluentd-request-ack=true")
        engine.docker("run", "-d", "--name", "writer", *opts, engine.image, "sh", "-c", script)
        eventually(lambda: len(receiver.events()) > 500)
        engine.kill9()
        engine.start()
        eventually(lambda: numbers(receiver)[-1:] == [3000], timeout=20)
        found = numbers(receiver)
        assert sorted(set(found)) == list(range(1, 3001))
        # The batch that was on its way at the kill may come twice, in one piece.
        assert len(found) - 3000 < 600
        again = [at for at in range(1, len(found)) if found[at] <= found[at - 1]]
        assert len(again) <= 1


REPLACEMENT = """
from plugin_sdk import DriverSpec, Plugin, PluginMeta, hookimpl
from plugin_sdk.logs import LogDriver


class Sink:
    def __init__(self, path):
        self.path = path

    async def write(self, entries):
        with open(self.path, "ab") as file:
            file.writelines(entry.line + b"\\n" for entry in entries)

    async def close(self):
        pass


class Mine:
    readable = False

    def validate(self, options):
        pass

    def log_path(self, info):
        return ""

    async def open(self, info):
        return Sink(info.options["syslog-address"])

    def read(self, info, query):
        raise NotImplementedError

    async def remove(self, info):
        pass


class MySyslog(Plugin):
    meta = PluginMeta(name="my_syslog", description="another syslog", drivers=(LogDriver,))

    @hookimpl
    def engine_drivers(self):
        return [DriverSpec(LogDriver, "syslog", Mine())]
"""


def test_a_stranger_replaces_one_driver(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "my_syslog-1.dist-info"
    info.mkdir(parents=True)
    (site / "my_syslog.py").write_text(REPLACEMENT)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-syslog\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[engine.plugins]\nmy_syslog = my_syslog:MySyslog\n")
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    engine = own_engine("--block-plugin", "log_syslog", environment={"PYTHONPATH": path})
    opts = ["--log-driver", "syslog", "--log-opt", f"syslog-address={tmp_path}/out"]
    engine.docker("run", "--name", "one", *opts, engine.image, "seq", "1", "3")
    eventually(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_bytes() == b"1\n2\n3\n")
    drivers = engine.http("GET", "/info").json()["Plugins"]["Log"]
    assert {"syslog", "fluentd", "gelf", "journald", "splunk", "awslogs", "gcplogs"} <= set(drivers)
