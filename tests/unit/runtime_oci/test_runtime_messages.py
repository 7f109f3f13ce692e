"""Runtimes' failures in dockerd's words."""

from __future__ import annotations

import pytest

from plugin_sdk import EngineError, InvalidParameter
from plugins.runtime_oci.messages import failure, plain

CREATE = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: crun create failed: "
)
EXEC = "OCI runtime exec failed: exec failed: "
START = "unable to start container process: "


@pytest.mark.parametrize(
    ("said", "command", "reason"),
    [
        (
            "executable file `nosuch` not found in $PATH: No such file or directory\n",
            "nosuch",
            f'{START}exec: "nosuch": executable file not found in $PATH',
        ),
        (
            "executable file `/x/y` not found in $PATH: No such file or directory",
            "/x/y",
            f'{START}exec: "/x/y": stat /x/y: no such file or directory',
        ),
        ("open executable: Permission denied", "/etc/passwd", f'{START}exec: "/etc/passwd": permission denied'),
        (
            "the path `/etc/passwd` exists but it is not executable: Operation not permitted",
            "/etc/passwd",
            f'{START}exec: "/etc/passwd": permission denied',
        ),
        (
            'time="2026-01-01T00:00:00Z" level=error msg="runc create failed: unable to start container process:'
            ' exec: \\"nosuch\\": executable file not found in $PATH"',
            "nosuch",
            f'{START}exec: "nosuch": executable file not found in $PATH',
        ),
        (
            "chdir `/nosuch`: No such file or directory",
            "true",
            f'{START}chdir to cwd ("/nosuch") set in config.json failed: no such file or directory',
        ),
    ],
)
def test_a_command_that_cannot_run(said: str, command: str, reason: str) -> None:
    for exec, prefix in ((False, CREATE), (True, EXEC)):
        error = failure(said, name="crun", command=command, exec=exec)
        assert isinstance(error, InvalidParameter)
        assert str(error) == f"{prefix}{reason}: unknown"


@pytest.mark.parametrize(
    "said",
    ["open executable: Operation not permitted", "the path `/etc` is not a regular file: Operation not permitted"],
)
def test_a_folder_counts_as_forbidden(said: str) -> None:
    error = failure(said, name="crun", command="/etc")
    assert str(error) == f'{CREATE}{START}exec: "/etc": is a directory: unknown: permission denied'


@pytest.mark.parametrize("said", ["open executable: Not a directory", "cannot open `/etc/passwd/x`: Not a directory"])
def test_a_path_through_a_file(said: str) -> None:
    error = failure(said, name="crun", command="/etc/passwd/x")
    assert str(error).startswith(f'{CREATE}{START}exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory: unknown')


def test_other_failures_keep_the_runtimes_words() -> None:
    error = failure("warning first\nmount `proc` to `proc`: Some trouble", name="crun", command="true")
    assert type(error) is EngineError
    assert str(error) == f"{CREATE}mount `proc` to `proc`: Some trouble: unknown"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "it gave no reason"),
        ('{"msg":"a \\"b\\"","level":"error"}\n', 'a "b"'),
        ('{"msg":"only a warning","level":"warning"}\n{"msg":"real","level":"error"}\n', "real"),
        ("{not json}\nlast words", "last words"),
        ("2026-01-01T00:00:00Z: error: x", "x"),
    ],
)
def test_plain_words(said: str, words: str) -> None:
    assert plain(said) == words
