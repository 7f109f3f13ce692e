"""Does scenarios on one engine and gives its normalised answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import Client

from differential.images import LABEL, PLAIN, RICH
from differential.normalise import Facts, Normaliser, flatten
from differential.scenario import API, Scenario, Step

Answer = dict[str, Any]
"""What one step gave: of `exit`, `out`, `err`, `status` and `json` those that it has."""

STEP_TIMEOUT = 40.0
WAIT_TIMEOUT = 15.0
_PREFIX = "dt-"
_EVENT_ATTRIBUTES = ("execID",)
"""Attributes of events whose values are left out: IDs."""


class Driver:
    """One engine.

    Args:
        client: reaches it.
        program: the docker CLI.
    """

    def __init__(self, client: Client, program: str = "docker") -> None:
        self._client = client
        self._program = program
        info = client.http("GET", f"{API}/info").json()
        self._facts = Facts.of(info)
        self.version = str(info["ServerVersion"])
        self.cli = cli_version(program)
        self._env = client.env({"DOCKER_API_VERSION": _api_version(client, program)})

    def prepare(self, archive: Path) -> None:
        """Clear what an interrupted run left, and load the images."""
        self._clear()
        self._run(["load", "-q", "-i", str(archive)], None, "/", check=True)

    def leave(self) -> None:
        """Clear, and remove the images."""
        self._clear()
        for image in (PLAIN, RICH):
            self._client.http("DELETE", f"{API}/images/{image}?force=1")

    def drive(self, scenario: Scenario) -> dict[str, Answer]:
        """Do all its steps; answers by the steps' keys. Raises AssertionError when set-up fails."""
        answers: dict[str, Answer] = {}
        with _client_files() as folder:
            normaliser = Normaliser(self._facts, scenario.text, folder)
            began = time.time()
            try:
                for step in scenario.steps:
                    answer = self._do(step, folder, normaliser, began)
                    if answer is not None:
                        answers[step.key] = answer
            finally:
                self._clear()
        return answers

    def _do(self, step: Step, folder: str, normaliser: Normaliser, began: float) -> Answer | None:
        match step.kind:
            case "docker":
                return self._docker(step, folder, normaliser)
            case "wait":
                return self._wait(*step.words)
            case "logged":
                return self._logged(*step.words)
            case "inspect":
                return self._request("GET", _inspect_path(*step.words), None, normaliser)
            case "events":
                return {"out": self._events(step.words[0], began, normaliser)}
            case "tree":
                return {"out": normaliser.text("\n".join(_tree(Path(folder, step.words[0])))).split("\n")}
            case "http":
                answer = self._request(*step.words, step.input, normaliser)
                if step.quiet:
                    assert answer["status"] < 400, f"{step.key}: {answer}"
                return None if step.quiet else answer

    def _docker(self, step: Step, folder: str, normaliser: Normaliser) -> Answer | None:
        done = self._run(list(step.words), step.input, folder, check=step.quiet)
        if step.quiet:
            return None
        answer: Answer = {"exit": done.returncode}
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if (document := _as_json(out)) is not None:
            answer["json"] = _leaves(normaliser.value(document))
        elif out:
            answer["out"] = normaliser.output(out, step.words, sort=step.sort)
        if err:
            answer["err"] = normaliser.errors(err)
        return answer

    def _run(
        self, args: list[str], data: bytes | None, folder: str, *, check: bool
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [self._program, *args],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            env=self._env,
            cwd=folder,
            timeout=STEP_TIMEOUT,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"set-up failed: docker {' '.join(args)}\n{done.stdout!r}\n{done.stderr!r}")
        return done

    def _request(self, method: str, path: str, body: bytes | None, normaliser: Normaliser) -> Answer:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection = http.client.HTTPConnection("localhost", timeout=STEP_TIMEOUT)
        connection.sock = self._client.connect(STEP_TIMEOUT)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            answer: Answer = {"status": reply.status}
            text = _read(reply).decode(errors="replace")
        finally:
            connection.close()
        if (document := _as_json(text)) is not None:
            answer["json"] = _leaves(normaliser.value(document))
        elif text:
            answer["out"] = normaliser.text(text).split("\n")
        return answer

    def _wait(self, name: str, status: str) -> Answer | None:
        """Nothing when it became so: only a wait in vain is an answer."""
        deadline = time.monotonic() + WAIT_TIMEOUT
        seen: Any = None
        while time.monotonic() < deadline:
            reply = self._client.http("GET", f"{API}/containers/{name}/json")
            if reply.status == 404:
                seen = "removed"
            else:
                state = reply.json().get("State", {})
                seen = (state.get("Status"), state.get("Health", {}).get("Status"))
            if status in seen:
                return None
            time.sleep(0.02)
        return {"out": [f"did not become {status}: {seen}"]}

    def _logged(self, name: str, text: str) -> Answer | None:
        """The same for what a container writes."""
        deadline = time.monotonic() + WAIT_TIMEOUT
        while time.monotonic() < deadline:
            reply = self._client.http("GET", f"{API}/containers/{name}/logs?stdout=1&stderr=1")
            if text.encode() in reply.body:
                return None
            time.sleep(0.02)
        return {"out": [f"did not write {text}"]}

    def _events(self, name: str, began: float, normaliser: Normaliser) -> list[str]:
        """One line for each event: type, action, attributes in the order of their names."""
        span = {"since": f"{began:.9f}", "until": f"{time.time() + 0.3:.9f}"}
        lines: list[str] = []
        reply = self._client.http("GET", f"{API}/events?{urllib.parse.urlencode(span)}", timeout=STEP_TIMEOUT)
        for raw in reply.body.splitlines():
            event = json.loads(raw)
            attributes = event["Actor"]["Attributes"]
            if name not in (attributes.get("name"), attributes.get("container"), event["Actor"]["ID"]):
                continue
            shown = " ".join(
                f"{key}={'<ID>' if key in _EVENT_ATTRIBUTES else value}" for key, value in sorted(attributes.items())
            )
            lines.append(normaliser.text(f"{event['Type']} {event['Action']} {shown}"))
        for at in range(len(lines) - 1):
            # Which of the two is told first is a race in the reference.
            if lines[at].startswith("container stop ") and lines[at + 1].startswith("container die "):
                lines[at : at + 2] = lines[at + 1], lines[at]
        return lines

    def _clear(self) -> None:
        """Remove what has our label or our prefix."""
        containers: set[str] = set()
        for filters in ({"label": [LABEL]}, {"name": [f"^/{_PREFIX}"]}):
            containers |= {each["Id"] for each in self._list("/containers/json", filters, all="1")}
        for each in containers:
            self._client.http("DELETE", f"{API}/containers/{each}?force=1&v=1", timeout=STEP_TIMEOUT)
        for network in self._list("/networks", {"name": [_PREFIX]}):
            self._client.http("DELETE", f"{API}/networks/{network['Id']}")
        for volume in self._list("/volumes", {"name": [_PREFIX]}).get("Volumes") or []:
            if volume["Name"].startswith(_PREFIX):
                self._client.http("DELETE", f"{API}/volumes/{volume['Name']}?force=1")
        for image in self._list("/images/json", {"label": [LABEL]}) + self._list(
            "/images/json", {"reference": [f"{_PREFIX}*"]}
        ):
            tags = set(image["RepoTags"] or [])
            for tag in (tags - {PLAIN, RICH}) or ({image["Id"]} - tags if not tags else set()):
                self._client.http("DELETE", f"{API}/images/{tag}?force=1")

    def _list(self, path: str, filters: dict[str, list[str]], **query: str) -> Any:
        query["filters"] = json.dumps(filters)
        reply = self._client.http("GET", f"{API}{path}?{urllib.parse.urlencode(query)}")
        assert reply.status == 200, f"{path}: {reply.body!r}"
        return reply.json()


def _read(reply: http.client.HTTPResponse) -> bytes:
    """The whole body; raises AssertionError for one that does not end in time."""
    deadline = time.monotonic() + STEP_TIMEOUT
    body = b""
    while part := reply.read1(65536):
        body += part
        assert time.monotonic() < deadline, f"an answer without an end: {body[:200]!r}"
    return body


def cli_version(program: str) -> str:
    """Version of a docker CLI, as `28.2.2`."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    found = re.search(r"version (\d+\.\d+\.\d+)", said)
    assert found, f"{program} --version said {said!r}"
    return found[1]


def version_number(version: str) -> list[int]:
    """For comparing versions."""
    return [int(part) for part in version.split(".")]


def _api_version(client: Client, program: str) -> str:
    """The newest API version that this CLI and the transcript's engine both speak."""
    said = subprocess.run(
        [program, "version", "--format", "{{.Client.DefaultAPIVersion}}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
        env=client.env(),
    ).stdout.strip()
    ours = API.removeprefix("/v")
    return min(said, ours, key=version_number)


def _inspect_path(first: str, second: str = "") -> str:
    kind, name = (first, second) if second else ("container", first)
    if kind == "image":
        return f"{API}/images/{name}/json"
    return f"{API}/{kind}s/{name}" + ("/json" if kind == "container" else "")


def _as_json(text: str) -> Any:
    if not text.startswith(("{", "[")):
        return None
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return None


def _leaves(value: Any) -> dict[str, Any]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {path: leaf for index, each in enumerate(value) for path, leaf in flatten(each, f"/{index}").items()}
    return flatten(value)


@contextlib.contextmanager
def _client_files() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="differential-") as name:
        folder = Path(name)
        (folder / "dir/sub").mkdir(parents=True)
        for path, text, mode in (
            ("hello.txt", "hello\n", 0o644),
            ("run.sh", "#!/bin/sh\necho ran\n", 0o755),
            ("dir/one", "1\n", 0o600),
            ("dir/sub/two", "2\n", 0o640),
            ("env.list", "# comment\nFROM_FILE=yes\nSPACED=a b\n\n", 0o644),
            ("labels.list", "from.file=yes\n", 0o644),
        ):
            (folder / path).write_text(text)
            (folder / path).chmod(mode)
        (folder / "link").symlink_to("hello.txt")
        for each in (folder, folder / "dir", folder / "dir/sub"):
            each.chmod(0o755)
        yield name


def _tree(root: Path) -> list[str]:
    if not os.path.lexists(root):
        return ["(nothing)"]
    paths = [root, *sorted(root.rglob("*"))] if root.is_dir() and not root.is_symlink() else [root]
    lines: list[str] = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            lines.append(f"{name} -> {os.readlink(path)}")
        elif path.is_dir():
            lines.append(f"{name}/ {path.stat().st_mode & 0o7777:04o}")
        else:
            lines.append(f"{name} {path.stat().st_mode & 0o7777:04o} {path.read_bytes()[:200]!r}")
    return lines
