"""What entries become, and options that are refused."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import orjson
import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.logs import LogEntry, LogInfo
from plugin_sdk.logwire import Piece
from plugins.log_shipping import awslogs, fluentd, gelf, journald, splunk, syslog
from plugins.log_shipping.awslogs import AwsLogsDriver, Event, begin_pattern, gather
from plugins.log_shipping.fluentd import FluentdDriver
from plugins.log_shipping.gelf import GelfDriver
from plugins.log_shipping.journald import JournaldDriver, field_name
from plugins.log_shipping.shipping import ShippingDriver
from plugins.log_shipping.splunk import SplunkDriver
from plugins.log_shipping.syslog import SyslogDriver

# 2026-01-02T03:04:05.123456789Z
TIME = 1767323045123456789
OUT, ERR = 1, 2


@pytest.fixture
def zone() -> Iterator[Callable[[str], None]]:
    """Sets the process's time zone."""
    before = os.environ.get("TZ")

    def to(name: str) -> None:
        os.environ["TZ"] = name
        time.tzset()

    yield to
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize(
    ("form", "zone_name", "message"),
    [
        ("", "UTC", "<158>Jan  2 03:04:05 web[{pid}]: hi\n"),
        ("", "America/New_York", "<158>Jan  1 22:04:05 web[{pid}]: hi\n"),
        ("rfc3164", "UTC", "<158>Jan  2 03:04:05 {host} web[{pid}]: hi\n"),
        ("rfc5424", "UTC", "<158>1 2026-01-02T03:04:05Z {host} web {pid} web - hi\n"),
        ("rfc5424", "Asia/Kolkata", "<158>1 2026-01-02T08:34:05+05:30 {host} web {pid} web - hi\n"),
        ("rfc5424micro", "UTC", "<158>1 2026-01-02T03:04:05.123456Z {host} web {pid} web - hi\n"),
        ("rfc5424micro", "America/New_York", "<158>1 2026-01-01T22:04:05.123456-05:00 {host} web {pid} web - hi\n"),
    ],
)
def test_syslog_messages(zone: Callable[[str], None], form: str, zone_name: str, message: str) -> None:
    zone(zone_name)
    wanted = message.format(pid=os.getpid(), host=socket.gethostname()).encode()
    assert syslog.formatter(form, 19, "web")(LogEntry(TIME, OUT, b"hi"), None) == wanted
    errors = syslog.formatter(form, 19, "web")(LogEntry(TIME, ERR, b"\xff\x00"), None)
    assert errors.startswith(b"<155>") and errors.endswith(b"\xff\x00\n")
    counted = syslog.formatter(form, 19, "web", counted=True)(LogEntry(TIME, OUT, b"hi"), None)
    assert counted == b"%d %s" % (len(wanted), wanted)


def test_facilities() -> None:
    assert [syslog.facility(name) for name in ("", "kern", "local7", "0", "23", "13")] == [3, 0, 23, 0, 23, 13]
    for name in ("24", "-1", "nobody", "-"):
        with pytest.raises(InvalidParameter, match="invalid syslog facility"):
            syslog.facility(name)


async def test_the_local_server_of_syslog(tmp_path: Path, info: Callable[..., LogInfo]) -> None:
    driver = SyslogDriver((str(tmp_path / "none"), str(tmp_path / "log")))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        sink = await driver.open(info({"tag": "t"}))
        await sink.write([LogEntry(TIME, OUT, b"hi")])
        assert server.recv(1000).endswith(b"t[%d]: hi\n" % os.getpid())
        await sink.close()


def test_gelf_messages(info: Callable[..., LogInfo]) -> None:
    encode = gelf.formatter(info({"labels": "a,_b"}, Labels={"a": "1", "_b": "2"}))
    message = orjson.loads(encode(LogEntry(TIME, ERR, b'say "hi" \xff\x00'), None))
    assert (message["short_message"], message["timestamp"], message["level"]) == (
        'say "hi" \ufffd\x00',
        1767323045.123,
        3,
    )
    assert (message["_a"], message["_b"], message["version"], message["_tag"]) == ("1", "2", "1.1", "ab" * 6)
    assert b'"timestamp":1767323045.123,' in encode(LogEntry(TIME, OUT, b""), None)
    piece = orjson.loads(encode(LogEntry(TIME, OUT, b"x", partial=True), Piece("i", 2)))
    assert (piece["_partial_id"], piece["_partial_ordinal"], piece["_partial_last"]) == ("i", "2", "false")


def test_gelf_chunks(caplog: pytest.LogCaptureFixture) -> None:
    assert gelf.divide(b"x" * 1420) == (b"x" * 1420,)
    chunks = gelf.divide(b"x" * 1421)
    assert [len(chunk) for chunk in chunks] == [1420, 25]
    assert {chunk[:2] for chunk in chunks} == {b"\x1e\x0f"}
    assert len({chunk[2:10] for chunk in chunks}) == 1
    assert [(chunk[10], chunk[11]) for chunk in chunks] == [(0, 2), (1, 2)]
    assert len(gelf.divide(b"x" * 128 * 1408)) == 128
    assert gelf.divide(b"x" * (128 * 1408 + 1), "ab" * 32) == ()
    assert "container abababababab: gelf: a line was dropped" in caplog.text


def test_journal_fields(info: Callable[..., LogInfo]) -> None:
    names = {"com.example-x": "COM_EXAMPLE_X", "__a": "A", "9x": "9X", "ü": "", "_": "", "a" * 80: "A" * 64}
    assert {name: field_name(name) for name in names} == names
    encode = journald.formatter(info({"labels": "ü,two"}, Labels={"ü": "1", "two": "a\nb"}))
    record = encode(LogEntry(TIME, OUT, b"a\x00\xff=b"), None)
    assert record.startswith(b"MESSAGE=a\x00\xff=b\nPRIORITY=6\nSYSLOG_TIMESTAMP=2026-01-02T03:04:05.123456789Z\n")
    assert b"\nTWO\n\x03\0\0\0\0\0\0\0a\nb\n" in record


def test_fluentd_entries(info: Callable[..., LogInfo]) -> None:
    for precise, moment in ((False, 1767323045), (True, msgpack.ExtType(0, bytes.fromhex("695735a5075bcd15")))):
        encode = fluentd.formatter(info({"env": "E"}, Env=["E=1"]), precise=precise)
        unpacker = msgpack.Unpacker(raw=True)
        unpacker.feed(encode(LogEntry(TIME, OUT, b"\xff\x00"), None))
        assert list(unpacker) == [
            moment,
            {
                b"container_id": b"ab" * 32,
                b"container_name": b"/web",
                b"E": b"1",
                b"source": b"stdout",
                b"log": b"\xff\x00",
            },
        ]


def test_splunk_events(info: Callable[..., LogInfo]) -> None:
    options = {"splunk-url": "https://x", "splunk-token": "t", "splunk-format": "json"}
    encode = splunk.formatter(info(options))
    for line, wanted in ((b'{"a":1.50}', b'{"a":1.50}'), (b"12", b"12"), (b"nan", b'"nan"'), (b"{", b'"{"')):
        record = encode(LogEntry(TIME, OUT, line), None)
        assert record.startswith(b'{"event":{"line":' + wanted + b',"source":"stdout","tag":"abababababab"},')
    assert b'"time":"1767323045.123456",' in record
    assert splunk.formatter(info({"splunk-format": "raw"}))(LogEntry(TIME, OUT, b" \t"), None) == b""


def test_events_of_one_call_to_cloudwatch() -> None:
    lines = [Event(at, "x" * 100) for at in range(20_000)]
    events, taken = gather(lines, None)
    assert (len(events), taken) == (8322, 8322)  # 1 MiB of 126 bytes each
    assert gather([Event(0, "a")] * 20_000, None)[1] == 10_000
    assert gather([None, None], None) == ([], 2)
    late = [Event(5, "a"), Event(4, "b"), Event(5 + awslogs.PUT_SPAN_MS, "c")]
    assert gather(late, None) == ([Event(4, "b"), Event(5, "a")], 2)


def test_lines_that_are_one_event_for_cloudwatch() -> None:
    # What is no field is a pattern, as with Docker.
    begin = begin_pattern({"awslogs-datetime-format": r"\[%b %d, %Y %H:%M:%S\]"})
    assert begin is not None
    assert begin.search(b"at [Jan 02, 2026 03:04:05] begin")
    assert not begin.search(b"at Jan 02, 2026 03:04:05")
    begin = begin_pattern({"awslogs-multiline-pattern": "^BEGIN"})
    lines = [Event(1, "BEGIN a"), Event(2, " b"), None, Event(3, "BEGIN c")]
    assert gather(lines, begin) == ([Event(1, "BEGIN a\n b\n\n"), Event(3, "BEGIN c\n")], 4)
    big = [Event(1, "BEGIN"), Event(2, "x" * 200_000), Event(3, "y" * 200_000)]
    assert [len(event.message) for event in gather(big, begin)[0]] == [200_007, 200_001]
    with pytest.raises(InvalidParameter, match="awslogs could not parse multiline pattern key"):
        begin_pattern({"awslogs-multiline-pattern": "("})


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        (SyslogDriver, {"syslog-tls-skip-verify": "maybe"}, "error reading syslog-tls-skip-verify log option"),
        (SyslogDriver, {"syslog-tls-cert": "/x"}, "syslog-tls-cert and syslog-tls-key are only of use together"),
        (SyslogDriver, {"syslog-address": "tcp+tls://x", "syslog-tls-ca-cert": "/nowhere"}, "cannot read /nowhere"),
        (SyslogDriver, {"tag": "{{.Foo}}"}, "can't evaluate field Foo"),
        (JournaldDriver, {"x": ""}, "unknown log opt 'x' for journald log driver"),
        (JournaldDriver, {"journald-namespace": "../x"}, "is no name of a journal namespace"),
        (FluentdDriver, {"fluentd-async": "x"}, "error reading fluentd-async log option"),
        (FluentdDriver, {"fluentd-retry-wait": "5"}, "fluentd-retry-wait: invalid duration"),
        (FluentdDriver, {"fluentd-max-retries": "x"}, 'fluentd-max-retries: "x" is no number'),
        (
            FluentdDriver,
            {"fluentd-async": "1", "fluentd-async-connect": "1"},
            "conflicting options: cannot specify both",
        ),
        (FluentdDriver, {"fluentd-async-reconnect-interval": "10h"}, "must be between 100ms and 10s"),
        (FluentdDriver, {"fluentd-address": "unix://"}, "path is empty"),
        (GelfDriver, {"gelf-address": "tcp://x:1", "gelf-tcp-max-reconnect": "-1"}, "must be a positive integer"),
        (SplunkDriver, {"splunk-url": "https://x", "splunk-token": "a\nb"}, "no token"),
        (SplunkDriver, {"splunk-url": "https://x", "splunk-token": "t", "splunk-capath": "/nowhere"}, "cannot read"),
        (AwsLogsDriver, {"awslogs-group": "x", "awslogs-create-group": "y"}, "must specify valid value for log opt"),
        (AwsLogsDriver, {"awslogs-group": "x", "awslogs-endpoint": "y"}, "awslogs-endpoint: want for example"),
    ],
)
def test_refusals(driver: type[ShippingDriver], options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        driver().validate(options)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        (SyslogDriver, {}),
        (SyslogDriver, {"syslog-tls-skip-verify": "", "syslog-address": "udp://", "mode": "non-blocking"}),
        (FluentdDriver, {}),
        (FluentdDriver, {"fluentd-address": "[::1]:24224", "fluentd-buffer-limit": "8m", "fluentd-retry-wait": "1s"}),
        (JournaldDriver, {}),
        (GelfDriver, {"gelf-address": "udp://x:12201", "gelf-compression-level": "-1"}),
        (SplunkDriver, {"splunk-url": "http://x:8088/", "splunk-token": "t"}),
        (AwsLogsDriver, {"awslogs-group": "x", "awslogs-region": "y", "awslogs-credentials-endpoint": "/z"}),
    ],
)
def test_options_that_are_fine(driver: type[ShippingDriver], options: dict[str, str]) -> None:
    driver().validate(options)
