"""The table of `docker top`."""

from __future__ import annotations

import pytest

from plugin_sdk import InvalidParameter
from plugins.containers.top import parse

PS = """UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 22:56 ?        00:00:00 /sbin/init  splash
root         100       1  0 22:57 ?        00:00:00 sleep 1000  x
root           -       -  0 22:57 -        00:00:00 -
root         101       1  0 22:57 ?        00:00:00 other
root           -       -  0 22:57 -        00:00:00 -
"""


def test_keeps_the_containers_processes_and_their_threads() -> None:
    table = parse(PS, [100, 7])
    assert table["Titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [row[1] for row in table["Processes"]] == ["100", "-"]
    assert table["Processes"][0][-1] == "sleep 1000  x"


@pytest.mark.parametrize("output", ["", "CMD\nsleep 1000\n", "x\n1\n"])
def test_needs_a_pid_column(output: str) -> None:
    with pytest.raises(InvalidParameter, match="Couldn't find PID field in ps output"):
        parse(output, [1])
