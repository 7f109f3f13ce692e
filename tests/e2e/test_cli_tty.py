"""Terminals: `-it`, attach, exec, detach keys and window sizes, on a real pseudo-terminal."""

from __future__ import annotations

import pytest
from harness import Client, eventually

pytestmark = pytest.mark.real

PROMPT = "# "


def test_run_it_is_a_session_with_a_shell(engine: Client) -> None:
    with engine.tty("run", "--rm", "-it", engine.image, "sh") as terminal:
        terminal.expect(PROMPT)
        terminal.send("tty; echo sum $((6*7))\n")
        terminal.expect(r"^/dev/(pts/\d+|console)$")
        terminal.expect(r"^sum 42$")
        terminal.send("exit 9\n")
        assert terminal.wait() == 9


def test_ctrl_c_reaches_the_command(engine: Client) -> None:
    with engine.tty("run", "--rm", "-it", engine.image, "sh", "-c", "echo ready; sleep 600; echo over") as terminal:
        terminal.expect("^ready$")
        terminal.send("\x03")
        assert terminal.wait() == 130


def test_window_size_is_the_terminals_and_follows_it(engine: Client) -> None:
    with engine.tty("run", "--rm", "-it", engine.image, "sh", rows=33, columns=101) as terminal:
        terminal.expect(PROMPT)

        def size_is(expected: str) -> bool:
            terminal.send("stty size\n")
            return terminal.expect(r"^(\d+ \d+)$").group(1) == expected

        eventually(lambda: size_is("33 101"))
        terminal.resize(40, 90)
        eventually(lambda: size_is("40 90"))
        terminal.send("exit\n")
        assert terminal.wait() == 0


def test_tty_without_stdin_still_prints(engine: Client) -> None:
    with engine.tty("run", "--rm", "-t", engine.image, "sh", "-c", "test -t 1 && echo is a tty") as terminal:
        terminal.expect("^is a tty$")
        assert terminal.wait() == 0


def test_detach_keys_then_attach_again(engine: Client) -> None:
    name = engine.name()
    try:
        with engine.tty("run", "-it", "--name", name, engine.image, "sh") as terminal:
            terminal.expect(PROMPT)
            terminal.send("kept=alive\n")
            terminal.expect(PROMPT)
            terminal.send("\x10\x11")
            assert terminal.wait() == 0
        assert engine.inspect(name)["State"]["Running"] is True
        with engine.tty("attach", name) as terminal:
            terminal.send("\necho it is $kept\n")
            terminal.expect("^it is alive$")
            terminal.send("exit 4\n")
            assert terminal.wait() == 4
    finally:
        engine.docker("rm", "-f", name)


def test_own_detach_keys(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-dit", "--name", name, engine.image, "sh")
    try:
        with engine.tty("attach", "--detach-keys", "ctrl-a,d", name) as terminal:
            terminal.send("echo he''re\n")
            terminal.expect("^here$")
            terminal.send("\x01d")
            assert terminal.wait() in (0, 1)
        assert engine.inspect(name)["State"]["Running"] is True
    finally:
        engine.docker("rm", "-f", name)


def test_exec_it(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-d", "--name", name, engine.image, "sleep", "600")
    try:
        with engine.tty("exec", "-it", name, "sh", rows=31, columns=97) as terminal:
            terminal.expect(PROMPT)

            def size_is(expected: str) -> bool:
                terminal.send("stty size\n")
                return terminal.expect(r"^(\d+ \d+)$").group(1) == expected

            eventually(lambda: size_is("31 97"))
            terminal.resize(20, 70)
            eventually(lambda: size_is("20 70"))
            terminal.send("exit 11\n")
            assert terminal.wait() == 11
        assert engine.inspect(name)["State"]["Running"] is True
    finally:
        engine.docker("rm", "-f", name)


def test_logs_of_a_terminal(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-dt", "--name", name, engine.image, "sh", "-c", "echo one; echo two >&2")
    try:
        engine.docker("wait", name)
        assert engine.docker("logs", name).stdout == "one\r\ntwo\r\n"
    finally:
        engine.docker("rm", "-f", name)
