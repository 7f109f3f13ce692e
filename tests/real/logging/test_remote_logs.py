"""Log plugins in a process of their own: what reaches them, what comes back, and what their faults do to containers."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Engine, OldStylePlugin, Raw, Refusal, eventually

from plugin_sdk.logs import LogEntry
from plugin_sdk.logwire import Decoder, Encoder

pytestmark = pytest.mark.real

AT_ONCE = 3.0
"""Seconds within which an answer comes at once, on a busy machine."""
START_AT_ONCE = 5.0


class LogPlugin(OldStylePlugin):
    """Keeps entries by container, beyond its own death, as a plugin with a disk would.

    Attributes:
        entries: by container ID, all that was read whole.
        starts: arguments of StartLogging.
        deaf: set it, and nothing is read off the FIFOs.
    """

    def __init__(self, folder: Path, name: str, *, reads: bool = False, store: dict[str, list[LogEntry]] | None = None):
        self.entries = store if store is not None else {}
        self.deaf = threading.Event()
        self.dead = threading.Event()
        self._reads = reads
        answers = {
            "LogDriver.Capabilities": lambda _: {"Cap": {"ReadLogs": reads}},
            "LogDriver.StartLogging": self.start_logging,
            "LogDriver.StopLogging": lambda _: {},
        }
        if reads:
            answers["LogDriver.ReadLogs"] = self.read_logs
        super().__init__(folder, name, ["LogDriver"], answers)

    def start_logging(self, arguments: dict[str, Any]) -> dict[str, Any]:
        descriptor = os.open(arguments["File"], os.O_RDONLY | os.O_NONBLOCK)
        assert stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        container = arguments["Info"]["ContainerID"]
        threading.Thread(target=self._consume, args=(descriptor, container), daemon=True).start()
        return {}

    def _consume(self, descriptor: int, container: str) -> None:
        decoder, kept = Decoder(), self.entries.setdefault(container, [])
        try:
            while not self.dead.is_set():
                if self.deaf.is_set():
                    time.sleep(0.01)
                    continue
                try:
                    data = os.read(descriptor, 5000)
                except BlockingIOError:
                    time.sleep(0.005)
                    continue
                if not data:
                    return
                kept += decoder.feed(data)
        finally:
            os.close(descriptor)

    def read_logs(self, arguments: dict[str, Any]) -> Raw:
        kept = self.entries.get(arguments["Info"]["ContainerID"], [])
        tail = arguments["Config"]["Tail"]
        return Raw(b"".join(Encoder(line_end=True).encode(kept[-tail:] if tail > 0 else kept)))

    def die(self) -> None:
        """Gone, with all its descriptors."""
        self.dead.set()
        self.close()

    def lines(self, container: str, stream: int = 1) -> list[str]:
        """Pieces put together: where the streams mix, a line may come in two."""
        found, begun = [], b""
        for entry in [*self.entries.get(container, [])]:
            if entry.stream == stream:
                begun += entry.line
                if not entry.partial:
                    found.append(begun.decode())
                    begun = b""
        return [*found, begun.decode()] if begun else found

    def close(self) -> None:
        self.dead.set()
        super().close()


@pytest.fixture
def plugin(engine: Engine) -> Iterator[Callable[..., LogPlugin]]:
    """`plugin(reads=...)` starts a log plugin with a name of its own."""
    made: list[LogPlugin] = []

    def make(name: str = "", **options: Any) -> LogPlugin:
        made.append(LogPlugin(engine.plugin_dir, name or engine.name(), **options))
        return made[-1]

    yield make
    for one in made:
        if not one.dead.is_set():
            one.close()


@pytest.fixture
def run(engine: Client) -> Iterator[Callable[..., str]]:
    """`run(plugin, script, *options)` starts a container that logs to the plugin, detached; gives its name."""
    made: list[str] = []

    def start(plugin: LogPlugin, script: str, *options: str) -> str:
        made.append(engine.name())
        where = ["--network", "none", "--name", made[-1], "--log-driver", plugin.name]
        engine.docker("run", "-d", *where, *options, engine.image, "sh", "-c", script)
        return made[-1]

    yield start
    engine.docker("rm", "-f", *made)


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


def soon(question: Callable[[], Any], seconds: float = 20) -> None:
    assert eventually(question, timeout=seconds)


def timed(act: Callable[[], Any]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def fifos(engine: Engine) -> list[str]:
    return [str(path) for path in engine.root.rglob("*") if path.is_fifo() and len(path.name) == 64]


def test_entries_reach_the_plugin_in_order(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]
) -> None:
    one = plugin()
    name = run(one, "seq 1 20000; seq 1 5000 >&2", "--log-opt", "colour=red", "-l", "a=b", "-e", "SIZE=9")
    facts = engine.inspect(name)
    assert facts["HostConfig"]["LogConfig"] == {"Type": one.name, "Config": {"colour": "red"}}
    soon(lambda: len(one.lines(facts["Id"])) == 20000 and len(one.lines(facts["Id"], 2)) == 5000)
    assert one.lines(facts["Id"]) == numbers(1, 20000)
    assert one.lines(facts["Id"], 2) == numbers(1, 5000)
    soon(lambda: one.called("LogDriver.StopLogging"))
    (start,) = one.called("LogDriver.StartLogging")
    assert one.called("LogDriver.StopLogging") == [{"File": start["File"]}]
    info = start["Info"]
    assert {key: info[key] for key in ("Config", "ContainerID", "ContainerName", "ContainerEntrypoint")} == {
        "Config": {"colour": "red"},
        "ContainerID": facts["Id"],
        "ContainerName": f"/{name}",
        "ContainerEntrypoint": "sh",
    }
    assert info["ContainerArgs"] == ["-c", "seq 1 20000; seq 1 5000 >&2"]
    assert (info["ContainerImageID"], info["ContainerImageName"]) == (facts["Image"], engine.image)
    assert (info["ContainerCreated"], info["ContainerLabels"]) == (facts["Created"], {"a": "b"})
    assert (info["LogPath"], info["DaemonName"], "SIZE=9" in info["ContainerEnv"]) == ("", "docker", True)
    soon(lambda: not os.path.exists(start["File"]))


def test_long_lines_come_in_pieces(engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]) -> None:
    one = plugin(reads=True)
    script = "head -c 50000 /dev/zero | tr '\\0' y; echo; echo next; printf open"
    name = run(one, script)
    container = engine.inspect(name)["Id"]
    soon(lambda: one.lines(container)[-1:] == ["open"])
    kept = one.entries[container]
    assert [len(entry.line) for entry in kept] == [16384, 16384, 16384, 50000 - 3 * 16384, 4, 4]
    assert [entry.partial for entry in kept] == [True, True, True, False, False, True]
    assert engine.docker("logs", name).stdout == "y" * 50000 + "\nnext\nopen"


def test_logs_are_read_back_from_the_plugin(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]
) -> None:
    one = plugin(reads=True)
    name = run(one, "echo one; echo err >&2; sleep 1.2; echo two; echo three; sleep 600")
    container = engine.inspect(name)["Id"]
    soon(lambda: one.lines(container)[-1:] == ["three"])
    whole = engine.docker("logs", name)
    assert (whole.stdout, whole.stderr) == ("one\ntwo\nthree\n", "err\n")
    assert engine.docker("logs", "-n", "2", name).stdout == "two\nthree\n"
    asked = one.called("LogDriver.ReadLogs")[-1]
    assert asked["Config"]["Tail"] == 2
    assert asked["Config"]["Follow"] is False
    stamps = engine.docker("logs", "-t", name).stdout.split()[0::2]
    assert engine.docker("logs", "--since", stamps[1], name).stdout == "two\nthree\n"
    assert engine.docker("logs", "--until", stamps[0], name).stdout == "one\n"
    engine.docker("stop", "-t", "0", name)
    assert engine.docker("logs", name).stdout == "one\ntwo\nthree\n"


def test_what_the_plugin_gives_too_much_is_cut(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]
) -> None:
    one = plugin(reads=True)
    one.answers["LogDriver.ReadLogs"] = lambda asked: Raw(
        b"".join(Encoder(line_end=True).encode(one.entries[asked["Info"]["ContainerID"]]))
    )
    name = run(one, "seq 1 100")
    container = engine.inspect(name)["Id"]
    soon(lambda: len(one.lines(container)) == 100)
    assert engine.docker("logs", "-n", "3", name).stdout == "98\n99\n100\n"


def test_following_goes_on_where_the_plugin_ends(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]
) -> None:
    for reads in (True, False):
        name = run(plugin(reads=reads), "for k in $(seq 1 40); do echo $k; sleep 0.05; done")
        assert engine.docker("logs", "-f", name).stdout.split() == numbers(1, 40)


def test_a_plugin_that_cannot_read_is_no_hindrance(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]
) -> None:
    one = plugin()
    del one.answers["LogDriver.Capabilities"]
    name = run(one, "seq 1 1000")
    soon(lambda: len(one.lines(engine.inspect(name)["Id"])) == 1000)
    assert engine.docker("logs", name).stdout.split() == numbers(1, 1000)
    assert engine.docker("logs", "-n", "2", name).stdout == "999\n1000\n"
    one.close()
    assert engine.docker("logs", "-n", "1", name).stdout == "1000\n"


def test_a_refusal_stands_in_the_error_of_run(engine: Engine, plugin: Callable[..., LogPlugin]) -> None:
    def refuse(_: dict[str, Any]) -> None:
        raise Refusal("colour: want red or blue")

    one = plugin()
    one.answers["LogDriver.StartLogging"] = refuse
    name = engine.name()
    refused = engine.docker("run", "-d", "--name", name, "--log-driver", one.name, engine.image, "true", check=False)
    assert refused.returncode != 0
    assert f"failed to initialize logging driver: plugin '{one.name}'" in refused.stderr
    assert "colour: want red or blue" in refused.stderr
    engine.docker("rm", name)


def test_common_options_are_the_engines(engine: Engine, plugin: Callable[..., LogPlugin]) -> None:
    one = plugin()
    refused = engine.docker("create", "--log-driver", one.name, "--log-opt", "mode=x", engine.image, check=False)
    assert "logging mode not supported: x" in refused.stderr


def test_an_unknown_plugin(engine: Engine) -> None:
    refused = engine.docker("create", "--log-driver", "me/nowhere", engine.image, "true", check=False)
    assert refused.returncode != 0
    assert 'error looking up logging plugin me/nowhere: plugin "me/nowhere" not found' in refused.stderr


def test_without_its_plugin_a_container_runs_and_keeps_its_output(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]
) -> None:
    one = plugin()
    name = run(one, "echo hi; sleep 600")
    soon(lambda: one.lines(engine.inspect(name)["Id"]) == ["hi"])
    one.die()
    mark = engine.mark()
    assert timed(lambda: engine.docker("ps")) < AT_ONCE
    assert timed(lambda: engine.docker("kill", name)) < AT_ONCE
    engine.docker("start", name)
    soon(lambda: engine.docker("logs", name).stdout == "hi\nhi\n")
    soon(lambda: f"log driver {one.name}: plugin '{one.name}'" in engine.log(mark))
    back = plugin(one.name)
    soon(lambda: back.lines(engine.inspect(name)["Id"]) == ["hi"])
    back.die()
    assert timed(lambda: engine.docker("rm", "-f", name)) < AT_ONCE


@pytest.mark.parametrize("fault", ["hangs in StartLogging", "does not read", "answers rubbish", "never opens"])
def test_faults_do_not_touch_the_container(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str], fault: str
) -> None:
    one = plugin()
    gate = threading.Event()

    def hang(arguments: dict[str, Any]) -> dict[str, Any]:
        gate.wait(40)
        return one.start_logging(arguments)

    if fault == "hangs in StartLogging":
        one.answers["LogDriver.StartLogging"] = hang
    elif fault == "answers rubbish":
        one.answers["LogDriver.StartLogging"] = lambda _: Raw(b"<html>no</html>")
    elif fault == "never opens":
        one.answers["LogDriver.StartLogging"] = lambda _: {}
    else:
        one.deaf.set()
    mark = engine.mark()
    try:
        name = run(one, "seq 1 200000; echo done > /tmp/done; sleep 600")
        soon(lambda: engine.docker("exec", name, "cat", "/tmp/done", check=False).stdout == "done\n")
        assert engine.docker("logs", "-n", "2", name).stdout == "199999\n200000\n"
        assert timed(lambda: engine.docker("ps")) < AT_ONCE
        if fault != "does not read":
            soon(lambda: f"log driver {one.name}" in engine.log(mark))
        assert timed(lambda: engine.docker("kill", name)) < AT_ONCE
        assert timed(lambda: engine.docker("rm", name)) < AT_ONCE
    finally:
        gate.set()
        one.deaf.clear()


def test_a_deaf_plugin_gets_it_all_when_it_listens_again(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]
) -> None:
    one = plugin()
    one.deaf.set()
    name = run(one, "seq 1 100000; sleep 600")
    container = engine.inspect(name)["Id"]
    time.sleep(2)
    assert one.lines(container) == []
    one.deaf.clear()
    soon(lambda: len(one.lines(container)) >= 100000)
    assert one.lines(container) == numbers(1, 100000)


def test_a_plugin_that_dies_and_comes_back(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]
) -> None:
    store: dict[str, list[LogEntry]] = {}
    one = plugin(store=store)
    name = run(one, "for k in $(seq 0 49); do seq $((k*500+1)) $((k*500+500)); sleep 0.1; done; sleep 600")
    container = engine.inspect(name)["Id"]
    for _ in range(3):
        time.sleep(1.2)
        one.die()
        time.sleep(0.3)
        one = plugin(one.name, store=store)
    soon(lambda: "25000" in one.lines(container), 40)
    assert one.lines(container) == numbers(1, 25000)
    assert len(one.called("LogDriver.StartLogging")) == 1


def test_a_daemon_that_is_killed_goes_on_and_leaves_no_fifo(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    with LogPlugin(engine.plugin_dir, "keeper", reads=True) as one:
        script = "for k in $(seq 0 39); do seq $((k*500+1)) $((k*500+500)); sleep 0.1; done; sleep 600"
        where = ["--network", "none", "--name", "busy", "--log-driver", "keeper"]
        engine.docker("run", "-d", *where, engine.image, "sh", "-c", script)
        container = engine.inspect("busy")["Id"]
        soon(lambda: one.lines(container))
        engine.kill9()
        left = fifos(engine)
        time.sleep(0.5)
        engine.start()
        soon(lambda: "20000" in one.lines(container), 40)
        got = one.lines(container)
        assert sorted(set(got), key=int) == numbers(1, 20000)
        # The batch that was on its way at the kill may come twice, no more than that.
        assert len(got) - len(set(got)) < 6000
        assert engine.docker("logs", "-n", "1", "busy").stdout == "20000\n"
        assert left
        assert not set(left) & set(fifos(engine))
        engine.docker("rm", "-f", "busy")
        soon(lambda: not fifos(engine))


def test_a_daemon_that_starts_without_the_plugin(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    where = ["--network", "none", "--log-driver", "absent"]
    with LogPlugin(engine.plugin_dir, "absent", reads=True) as one:
        engine.docker(
            "run", "-d", "--name", "on", *where, engine.image, "sh", "-c", "echo 1; sleep 4; echo 2; sleep 600"
        )
        engine.docker("run", "--name", "over", *where, engine.image, "echo", "end")
        engine.docker("create", "--name", "created", *where, engine.image, "true")
        running = engine.inspect("on")["Id"]
        soon(lambda: one.lines(running) == ["1"] and one.lines(engine.inspect("over")["Id"]) == ["end"])
        engine.stop()
    assert engine.start() < START_AT_ONCE
    assert timed(lambda: engine.docker("ps")) < AT_ONCE
    refused = engine.docker("start", "created", check=False)
    assert "failed to initialize logging driver" in refused.stderr
    assert 'error looking up logging plugin absent: plugin "absent" not found' in refused.stderr
    unread = engine.docker("logs", "over", check=False)
    assert unread.returncode == 1
    assert "absent" in unread.stderr
    assert timed(lambda: engine.docker("rm", "-f", "created", "over")) < AT_ONCE
    soon(lambda: engine.docker("logs", "on").stdout.endswith("2\n"))
    with LogPlugin(engine.plugin_dir, "absent", reads=True, store=one.entries) as back:
        soon(lambda: back.lines(running) == ["1", "2"])
        assert engine.docker("logs", "on").stdout == "1\n2\n"
        engine.docker("rm", "-f", "on")


def test_the_default_driver_may_come_later(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    engine.stop()
    engine.flags += ["--log-driver", "later", "--log-opt", "colour=red"]
    with LogPlugin(engine.plugin_dir, "later") as one:
        engine.start()
        assert one.calls == []
        engine.docker("run", "--network", "none", "--name", "it", engine.image, "echo", "hi")
        assert engine.inspect("it")["HostConfig"]["LogConfig"] == {"Type": "later", "Config": {"colour": "red"}}
        soon(lambda: one.lines(engine.inspect("it")["Id"]) == ["hi"])


def test_an_unknown_default_driver_is_refused(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--log-driver", "nowhere", start=False)
    assert engine.spawn().wait(20) != 0
    assert "--log-driver: no LogDriver is named 'nowhere'" in engine.log()


def test_a_deaf_plugin_is_held_to_its_buffer_and_told_what_it_missed(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]
) -> None:
    """Three million lines while nobody reads: the container ends as if nothing were, the disk holds the bound, and every line
    is either delivered or counted."""
    one = plugin()
    one.deaf.set()
    bounds = ["mode=non-blocking", "max-buffer-size=2m", "cache-disabled=true"]
    mark = engine.mark()
    name = run(one, "seq 1 3000000", *(word for option in bounds for word in ("--log-opt", option)))
    assert timed(lambda: engine.docker("wait", name)) < 30
    container = engine.inspect(name)["Id"]
    folder = next(engine.root.rglob(f"logging/{container}"))

    def used() -> int:
        return sum(
            found.st_blocks * 512 for found in {each.stat().st_ino: each.stat() for each in folder.iterdir()}.values()
        )

    soon(lambda: used() < 5 << 20)
    soon(lambda: "lines" in engine.log(mark) and "of its log were dropped so far" in engine.log(mark))
    one.deaf.clear()
    soon(lambda: one.entries[container] and one.entries[container][-1].line == b"3000000", 40)
    entries = one.entries[container]
    notices = [entry for entry in entries if entry.line.startswith(b"[engine] ")]
    assert sum(int(entry.line.split()[1]) for entry in notices) + len(entries) - len(notices) == 3_000_000
    assert all(entry.stream == 2 for entry in notices)


def test_the_local_copy_is_bounded_and_can_be_declined(
    engine: Engine, plugin: Callable[..., LogPlugin], run: Callable[..., str]
) -> None:
    one = plugin()
    copied = run(one, "seq 1 500000", "--log-opt", "cache-max-size=1m", "--log-opt", "cache-max-file=2")
    declined = run(one, "seq 1 1000; sleep 600", "--log-opt", "cache-disabled=true")
    engine.docker("wait", copied)
    soon(lambda: len(one.lines(engine.inspect(copied)["Id"])) == 500_000, 40)
    kept = [int(line) for line in engine.docker("logs", copied).stdout.split()]
    assert kept == list(range(kept[0], 500_001))
    assert 20_000 < len(kept) < 60_000
    soon(lambda: len(one.lines(engine.inspect(declined)["Id"])) == 1000)
    refused = engine.docker("logs", declined, check=False)
    assert refused.returncode == 1
    assert "configured logging driver does not support reading" in refused.stderr
