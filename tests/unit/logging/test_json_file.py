"""The json-file driver's files: rotation, crashes, and people who meddle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import ContainerConfig, ContainerRecord, HostConfig
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery
from plugins.logging.history import cut, json_pieces, read
from plugins.logging.jsonfile import JsonFileDriver, JsonFileSink
from plugins.logging.local import LocalDriver, NoneDriver
from plugins.logging.options import UNLIMITED, Limits, attributes, limits


def lines(*numbers: int) -> bytes:
    return b"".join(b"2026-01-02T03:04:05.123456789+00:00 stdout F %d\n" % number for number in numbers)


def content(path: Path, tail: int = -1) -> list[int]:
    pieces = json_pieces(path)
    cut(pieces, tail=tail, since=b"")
    found = [int(text) for batch in read(pieces) for text in batch.lines]
    for piece in pieces:
        piece.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "id-json.log"


def test_rotation_keeps_the_newest(path: Path) -> None:
    sink = JsonFileSink(path, Limits(1000, 3), {})
    sink.append(lines(*range(200)))
    names = sorted(os.listdir(path.parent))
    assert names == ["id-json.log", "id-json.log.1", "id-json.log.2"]
    assert all((path.parent / name).stat().st_size <= 1000 for name in names)
    kept = content(path)
    assert kept == list(range(kept[0], 200))
    assert content(path, 5) == [195, 196, 197, 198, 199]
    assert content(path, 20) == list(range(180, 200))


def test_one_file_is_begun_anew(path: Path) -> None:
    sink = JsonFileSink(path, Limits(1000, 1), {})
    sink.append(lines(*range(100)))
    assert os.listdir(path.parent) == ["id-json.log"]
    assert content(path)[-1] == 99


def test_compressed_files_are_read_too(path: Path) -> None:
    sink = JsonFileSink(path, Limits(1000, 4, compress=True), {})
    sink.append(lines(*range(40)))
    before = content(path)
    sink.tidy()
    assert sorted(os.listdir(path.parent))[1:] == ["id-json.log.1.gz", "id-json.log.2.gz", "id-json.log.3.gz"]
    assert content(path) == before
    sink.append(lines(*range(40, 60)))
    sink.tidy()
    assert content(path)[-20:] == list(range(40, 60))
    assert len(os.listdir(path.parent)) == 4


def test_what_a_crash_left_half_done_is_taken_back(path: Path) -> None:
    sink = JsonFileSink(path, Limits(), {})
    sink.append(lines(1, 2))
    mark = sink.mark
    sink.append(lines(3))
    with path.open("ab") as file:
        file.write(b'{"log":"cut')
    again = JsonFileSink(path, Limits(), {})
    again.recover(mark)
    again.append(lines(3, 4))
    assert content(path) == [1, 2, 3, 4]


def test_a_crash_behind_a_rotation_is_taken_back(path: Path) -> None:
    bounds = Limits(1000, 5)
    sink = JsonFileSink(path, bounds, {})
    sink.append(lines(*range(10)))
    mark = sink.mark
    sink.append(lines(*range(10, 35)))
    assert len(os.listdir(path.parent)) > 2
    again = JsonFileSink(path, bounds, {})
    again.recover(mark)
    again.append(lines(*range(10, 36)))
    assert content(path) == list(range(36))


def test_a_crash_behind_many_rotations_is_taken_back(path: Path) -> None:
    """The file of the mark is gone, and its inode may be another file's by now."""
    for files in (1, 2, 3):
        bounds = Limits(1000, files)
        sink = JsonFileSink(path, bounds, {})
        sink.append(lines(*range(10)))
        mark = sink.mark
        sink.append(lines(*range(10, 200)))
        again = JsonFileSink(path, bounds, {})
        again.recover(mark)
        again.append(lines(*range(10, 201)))
        kept = content(path)
        assert kept == list(range(kept[0], 201))
        for other in path.parent.iterdir():
            other.unlink()


def test_somebody_moves_or_empties_the_file(path: Path) -> None:
    sink = JsonFileSink(path, Limits(), {})
    sink.append(lines(1))
    os.truncate(path, 0)
    sink.append(lines(2))
    assert content(path) == [2]
    path.rename(path.with_name("elsewhere"))
    sink.append(lines(3))
    assert content(path) == [3]


def container(**config: object) -> ContainerRecord:
    return ContainerRecord(
        Id="ab" * 32,
        Name="web",
        Created="",
        ImageID="sha256:" + "cd" * 32,
        ImageRef="busybox",
        Driver="",
        Runtime="",
        Path="sh",
        Args=["-c", "true"],
        Config=ContainerConfig.model_validate(config),
        HostConfig=HostConfig(),
    )


async def test_the_drivers_own_writing_and_reading(tmp_path: Path) -> None:
    driver = JsonFileDriver()
    info = LogInfo(container(), {}, tmp_path)
    sink = await driver.open(info)
    entries = [LogEntry(10**18 + number, 1 + number % 2, b"%d" % number, attributes={"a": "b"}) for number in range(9)]
    await sink.write(entries[:5])
    await sink.write(entries[5:])
    await sink.close()
    rows = [json.loads(row) for row in Path(driver.log_path(info)).read_text().splitlines()]
    assert rows[0] == {"log": "0\n", "stream": "stdout", "attrs": {"a": "b"}, "time": "2001-09-09T01:46:40.000000000Z"}
    assert [entry async for batch in driver.read(info, LogQuery()) for entry in batch] == entries
    wanted = LogQuery(stderr=False, tail=4, since_ns=10**18 + 6)
    assert [entry.line async for batch in driver.read(info, wanted) for entry in batch] == [b"6", b"8"]
    await driver.remove(info)
    await driver.remove(info)
    assert os.listdir(tmp_path) == []


def test_attributes_of_labels_environment_and_tag() -> None:
    record = container(Labels={"a": "1", "com.x": "2", "c": "3"}, Env=["E=5", "F=6"])
    options = {"labels": "a,none", "labels-regex": r"^com\.", "env": "E", "tag": "{{.Name}}/{{ .ID }}/{{.Command}}"}
    assert attributes(LogInfo(record, options, Path("/nowhere"))) == {
        "a": "1",
        "com.x": "2",
        "E": "5",
        "tag": "web/abababababab/sh -c true",
    }


def test_limits() -> None:
    assert limits({}) == Limits(20 << 20, 5)
    assert limits({"max-size": "10m"}) == Limits(10 << 20, 1)
    assert limits({"max-size": "10m"}, default_files=5) == Limits(10 << 20, 5)
    assert limits({"max-file": "3"}) == Limits(20 << 20, 3)
    assert limits({"max-size": "-1"}).size == UNLIMITED
    assert limits({"compress": "true"}).compress


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        (JsonFileDriver(), {"x": "1"}, "unknown log opt 'x' for json-file log driver"),
        (JsonFileDriver(), {"max-size": "x"}, "invalid size: 'x'"),
        (JsonFileDriver(), {"max-size": "0"}, "max-size must be a positive number"),
        (JsonFileDriver(), {"max-file": "0"}, "max-file cannot be less than 1"),
        (JsonFileDriver(), {"mode": "x"}, "logger: logging mode not supported: x"),
        (
            JsonFileDriver(),
            {"max-buffer-size": "1m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            JsonFileDriver(),
            {"compress": "1", "max-size": "1m"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        (LocalDriver(), {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        (NoneDriver(), {"max-size": "1m"}, "invalid logging opts for driver none"),
    ],
)
def test_options_refused(driver: NoneDriver, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        driver.validate(options)
    assert str(refused.value) == message


@pytest.mark.parametrize("options", [{"tag": "{{.Nope}}"}, {"env-regex": "("}, {"compress": "perhaps"}])
def test_attribute_options_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter):
        JsonFileDriver().validate(options)
