"""`docker commit`: every instruction that Docker allows, and how a container's configuration is carried over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Client

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def box(engine: Client) -> Iterator[str]:
    name = engine.name()
    options = ["-e", "A=1", "-e", "B=2", "-l", "kept=yes", "-l", "l0=zero", "-v", "/v0", "--expose", "99", "-u", "0:0"]
    engine.docker("run", "-d", "--name", name, "--network", "none", *options, engine.image, "sleep", "600")
    yield name
    engine.docker("rm", "-fv", name)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], {"Env": ["A=1", "B=2"], "Cmd": ["sleep", "600"], "User": "0:0", "Labels": {"kept": "yes", "l0": "zero"}}),
        (['CMD ["a", "b"]'], {"Cmd": ["a", "b"]}),
        (["CMD a b $C"], {"Cmd": ["/bin/sh", "-c", "a b $C"]}),
        (['ENTRYPOINT ["/e"]'], {"Entrypoint": ["/e"], "Cmd": None}),
        (["ENTRYPOINT /e x"], {"Entrypoint": ["/bin/sh", "-c", "/e x"]}),
        (['ENV A=9 C="two words"', "ENV D three  four"], {"Env": ["A=9", "B=2", "C=two words", "D=three  four"]}),
        (["ENV X=$A"], {"Env": ["A=1", "B=2", "X=1"]}),
        (["ENV Q=1\nENV R=2"], {"Env": ["A=1", "B=2", "Q=1", "R=2"]}),
        (["EXPOSE 80 53/udp"], {"ExposedPorts": {"99/tcp": {}, "80/tcp": {}, "53/udp": {}}}),
        (['LABEL l0=one l2="x y"'], {"Labels": {"kept": "yes", "l0": "one", "l2": "x y"}}),
        (["USER app:29"], {"User": "app:29"}),
        (["VOLUME /v1 /v2", 'VOLUME ["/v3"]'], {"Volumes": {"/v0": {}, "/v1": {}, "/v2": {}, "/v3": {}}}),
        (["WORKDIR /a", "WORKDIR b"], {"WorkingDir": "/a/b"}),
        (["STOPSIGNAL SIGUSR1"], {"StopSignal": "SIGUSR1"}),
        (
            ["HEALTHCHECK --interval=5s --retries=2 CMD curl x"],
            {"Healthcheck": {"Test": ["CMD-SHELL", "curl x"], "Interval": 5 * 10**9, "Retries": 2}},
        ),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (["ONBUILD RUN echo hi"], {"OnBuild": ["RUN echo hi"]}),
    ],
)
def test_changes(engine: Client, box: str, changes: list[str], expected: dict[str, Any]) -> None:
    options = [word for change in changes for word in ("-c", change)]
    image = engine.docker("commit", *options, box).stdout.strip()
    try:
        config = json.loads(engine.docker("image", "inspect", image).stdout)[0]["Config"]
        for field, value in expected.items():
            found = config.get(field)
            if field == "Env":
                # The CLI sends `-e` options in any order.
                found = sorted(entry for entry in found if not entry.startswith("PATH="))
            assert found == value, field
    finally:
        engine.docker("rmi", "-f", image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("FROM x", "FROM is not a valid change command"),
        ("SHELL x", "SHELL is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("EXPOSE abc", "Invalid containerPort: abc"),
        ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
        ("HEALTHCHECK X", 'Unknown type "X" in HEALTHCHECK (try CMD)'),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("# only a comment", "file with no instructions"),
        ("", "file with no instructions"),
    ],
)
def test_bad_changes(engine: Client, box: str, change: str, message: str) -> None:
    refused = engine.docker("commit", "-c", change, box, check=False)
    assert (refused.returncode, refused.stderr.strip()) == (1, f"Error response from daemon: {message}")


def test_a_paused_container_stays_paused_and_a_stopped_one_can_be_committed(engine: Client) -> None:
    name = engine.name()
    script = "echo data > /made; sleep 600"
    engine.docker("run", "-d", "--name", name, "--network", "none", engine.image, "sh", "-c", script)
    images = []
    try:
        for verb, state in (("pause", "paused"), ("unpause", "running"), ("kill", "exited")):
            engine.docker(verb, name)
            images.append(engine.docker("commit", name).stdout.strip())
            assert engine.inspect(name)["State"]["Status"] == state
        assert len(set(images)) == 3
        shown = engine.docker("run", "--rm", "--network", "none", images[-1], "cat", "/made").stdout
        assert shown == "data\n"
    finally:
        engine.docker("rm", "-f", name)
        engine.docker("rmi", "-f", *images, check=False)
