"""A real daemon with a network namespace, roots and a socket of its own, and the stock docker CLI pointed at it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugin_sdk.testing.engine import leftovers
from plugin_sdk.testing.engine.terminal import Terminal
from plugin_sdk.testing.engine.waiting import eventually

if TYPE_CHECKING:
    from docker.client import DockerClient

PROGRAM = Path(os.environ.get("ENGINE_TEST_PROGRAM") or Path(sys.executable).with_name("engine"))
"""The engine that is tried: the one beside this interpreter."""
START_TIMEOUT = 20.0
STOP_TIMEOUT = 30.0


class CommandFailed(AssertionError):
    """A command ended with another code than 0, or not at all."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The text of an error."""
        return str(self.json()["message"])


class Client:
    """The client's side of an engine: the docker CLI, docker-py and plain HTTP over its unix socket.

    Attributes:
        host: for DOCKER_HOST.
        netns: the network namespace in which its published ports can be reached; None: the tests' own.
        image: name of a busybox image that it has.
    """

    def __init__(self, host: str, netns: Path | None, home: Path) -> None:
        self.host = host
        self.netns = netns
        self.image = "busybox"
        self._home = home

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment of a client: nothing of the caller's docker settings remains."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        kept |= {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self._home), "DOCKER_CLI_HINTS": "false"}
        return kept | dict(extra or {})

    def docker(
        self,
        *args: str | Path,
        input: str | bytes | None = None,
        check: bool = True,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker CLI to its end.

        Args:
            check: raise CommandFailed, with all that was printed, unless it exits with 0.
            timeout: seconds; raises CommandFailed when they are over.
        """
        return self._run(["docker", *map(str, args)], input, check, timeout, env)

    def engine(
        self, *args: str | Path, input: str | bytes | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run our own command, `engine`, to its end."""
        return self._run([str(PROGRAM), *map(str, args)], input, check, timeout, None)

    def _run(
        self,
        argv: list[str],
        input: str | bytes | None,
        check: bool,
        timeout: float,
        env: Mapping[str, str] | None,
    ) -> subprocess.CompletedProcess[str]:
        data = input.encode() if isinstance(input, str) else input
        command = " ".join(argv)
        mark = self.mark()
        try:
            done = subprocess.run(
                argv,
                input=data,
                stdin=subprocess.DEVNULL if data is None else None,
                capture_output=True,
                timeout=timeout,
                env=self.env(env),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(
                f"$ {command}\nstill running after {timeout:g} s\n{error.output!r}\n{error.stderr!r}\n{self.log(mark)}"
            ) from None
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode != 0:
            raise CommandFailed(f"$ {command}\nexit code {done.returncode}\n{out}{err}\n{self.log(mark)}")
        return subprocess.CompletedProcess(argv, done.returncode, out, err)

    def popen(self, *args: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start the docker CLI with pipes, as text; the caller ends it."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(["docker", *map(str, args)], text=True, env=self.env(), **pipes | options)

    def tty(self, *args: str, rows: int = 24, columns: int = 80) -> Terminal:
        """Start the docker CLI on a pseudo-terminal."""
        return Terminal(["docker", *args], env=self.env({"TERM": "xterm"}), rows=rows, columns=columns)

    def inspect(self, ref: str) -> Any:
        """The first object of `docker inspect`."""
        return json.loads(self.docker("inspect", ref).stdout)[0]

    def api(self, **options: Any) -> DockerClient:
        """A docker-py client."""
        from docker.client import DockerClient

        return DockerClient(base_url=self.host, **{"version": "auto", "timeout": 60} | options)

    def http(
        self,
        method: str,
        path: str,
        body: bytes | str | dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Reply:
        """One request, sent as it is; a dict is sent as JSON."""
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        connection.sock = self.connect(timeout)
        sent = dict(headers or {})
        if isinstance(body, dict):
            body = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Reply(answer.status, {k.title(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def connect(self, timeout: float = 30) -> socket.socket:
        """A bare connection to the API."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(self.host.removeprefix("unix://"))
        return connection

    def nsenter(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = 30, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the engine's network namespace, for example to reach a published port."""
        enter = ["nsenter", f"--net={self.netns}"] if self.netns else []
        done = subprocess.run(
            [*enter, *argv], capture_output=True, text=True, timeout=timeout, check=False, input=input, env=self.env()
        )
        if check and done.returncode != 0:
            raise CommandFailed(f"$ {' '.join(argv)}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def fetch(self, url: str, *, timeout: float = 3) -> str:
        """GET a page in the engine's network namespace; "" when nobody serves it."""
        script = (
            "import sys, urllib.request as r\n"
            "print(r.urlopen(sys.argv[1], timeout=float(sys.argv[2])).read().decode(), end='')"
        )
        return self.nsenter([sys.executable, "-c", script, url, str(timeout)], check=False).stdout

    def name(self, what: str = "test") -> str:
        """A name that nothing else has."""
        return f"{what}-{secrets.token_hex(4)}"

    def census(self) -> dict[str, int]:
        """How many objects the engine has, by kind."""
        listings = {
            "containers": ["ps", "-aq"],
            "images": ["images", "-aq"],
            "networks": ["network", "ls", "-q"],
            "volumes": ["volume", "ls", "-q"],
        }
        return {kind: len(self.docker(*listing).stdout.split()) for kind, listing in listings.items()}

    def mark(self) -> int:
        """A place in the daemon's log: now."""
        return 0

    def log(self, mark: int = 0) -> str:
        """What the daemon has logged since `mark`."""
        return ""


class External(Client):
    """An engine that somebody else runs (ENGINE_TEST_HOST): to check the tests themselves against another engine."""

    def __init__(self, host: str, netns: Path | None) -> None:
        super().__init__(host, netns, Path(tempfile.mkdtemp(prefix="engine-cli-")))


class Engine(Client):
    """An engine of our own.

    Attributes:
        root: its folder; `data`, `run`, `s.sock`, `pid` and `log` lie in it.
        flags: further options of `engine daemon`.
        plugin_dir: where it looks for old-style plugins.
        exit_code: of the daemon's last end.
    """

    def __init__(
        self, *flags: str, netns: Path | None = None, environment: Mapping[str, str] | None = None, debug: bool = True
    ) -> None:
        # Short: the path of a unix socket has at most 107 bytes. Not /tmp, which may be a small tmpfs.
        self.root = Path(tempfile.mkdtemp(prefix="e-", dir="/var/tmp"))
        self.root.chmod(0o711)  # as /var/lib is: what containers use lies below
        self._owns_netns = netns is None
        if netns is None:
            label = f"engine-{self.root.name}"
            subprocess.run(["ip", "netns", "add", label], check=True, timeout=20)
            netns = Path("/run/netns", label)
            subprocess.run(["ip", "-n", label, "link", "set", "lo", "up"], check=True, timeout=20)
        home = self.root / "cli"
        home.mkdir()
        super().__init__(f"unix://{self.root}/s.sock", netns, home)
        self.plugin_dir = self.root / "plugins"
        self.flags = ["--debug", *flags] if debug else list(flags)
        self.environment = dict(environment or {})
        self.exit_code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._born = time.time()
        self._answered = False

    @property
    def pid(self) -> int:
        """The daemon's process ID."""
        assert self._process is not None, "the daemon was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """The daemon is alive."""
        return self._process is not None and self._process.poll() is None

    def command(self) -> list[str]:
        """The daemon's command line."""
        daemon = [str(PROGRAM), "daemon", "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "run")]
        own = ["--pidfile", str(self.root / "pid"), "-H", self.host, "--plugin-dir", str(self.plugin_dir)]
        return ["nsenter", f"--net={self.netns}", *daemon, *own, *self.flags]

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the daemon and do not wait for its API."""
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
                start_new_session=True,
            )
        return self._process

    def start(self) -> float:
        """Start the daemon; gives the seconds until its API answered. Raises CommandFailed when it does not."""
        began = time.monotonic()
        self.spawn()
        while time.monotonic() - began < START_TIMEOUT:
            if not self.running:
                break
            if self.answers():
                self._answered = True
                return time.monotonic() - began
            time.sleep(0.01)
        raise CommandFailed(f"the daemon did not come up\n{' '.join(self.command())}\n{self.log()[-4000:]}")

    def answers(self) -> bool:
        """`GET /_ping` says OK."""
        try:
            return self.http("GET", "/_ping", timeout=5).body == b"OK"
        except OSError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the daemon's end; gives its exit code, negative for a signal's."""
        assert self._process is not None, "the daemon was never started"
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self.exit_code = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
            raise CommandFailed(f"the daemon did not stop within {STOP_TIMEOUT:g} s\n{self.log()[-4000:]}") from None
        return self.exit_code

    def kill9(self) -> None:
        """Kill the daemon, and it alone, without warning."""
        self.stop(signal.SIGKILL)

    def restart(self) -> float:
        """Stop in good order and start again; gives the seconds until the API answered."""
        self.stop()
        return self.start()

    def signal(self, number: int) -> None:
        """Send a signal to the daemon."""
        os.kill(self.pid, number)

    def mark(self) -> int:
        """See `Client.mark`."""
        path = self.root / "log"
        return path.stat().st_size if path.exists() else 0

    def log(self, mark: int = 0) -> str:
        """See `Client.log`."""
        path = self.root / "log"
        return path.read_bytes()[mark:].decode(errors="replace") if path.exists() else ""

    def census(self) -> dict[str, int]:
        """What the engine has, by kind: its own objects and what it holds of the machine."""
        return super().census() | leftovers.census(self.root, self.netns)

    def destroy(self) -> list[str]:
        """Remove all objects, stop the daemon, remove everything; gives what should not have been left."""
        complaints: list[str] = []
        ids: list[str] = []
        try:
            if not self.running and self._answered:
                self.start()
            if self.running:
                ids = self._remove_objects()
                if self.stop() != 0:
                    complaints.append(f"the daemon's exit code is {self.exit_code}")
        except (AssertionError, OSError, ValueError) as error:
            complaints.append(f"clearing up failed: {str(error)[:1000]}")
            if self.running:
                self.kill9()
        # A shared namespace holds the other engine's things as well.
        netns = self.netns if self._owns_netns else None
        with contextlib.suppress(AssertionError):  # what goes asynchronously gets a moment
            eventually(lambda: not leftovers.find(self.root, netns, ids), timeout=3)
        complaints += leftovers.clear(self.root, netns, ids)
        if self._owns_netns and self.netns:
            subprocess.run(["ip", "netns", "delete", self.netns.name], check=False, timeout=20)
        if complaints:
            complaints.append(f"the daemon's last words:\n{self.log()[-3000:]}")
        leftovers.remove_folder(self.root)
        return complaints

    def _remove_objects(self) -> list[str]:
        """Remove containers, networks and volumes; gives the IDs of all containers of this engine's life."""
        span = ["--since", str(int(self._born)), "--until", str(int(time.time()) + 1)]
        created = ["--filter", "type=container", "--filter", "event=create", "--format", "{{.Actor.ID}}"]
        ids = set(self._told("events", *span, *created)) | set(self._told("ps", "-aq", "--no-trunc"))
        if containers := self._told("ps", "-aq"):
            self.docker("rm", "-f", "-v", *containers, timeout=120)
        if networks := self._told("network", "ls", "-q", "--filter", "type=custom"):
            self.docker("network", "rm", *networks)
        if volumes := self._told("volume", "ls", "-q"):
            self.docker("volume", "rm", "-f", *volumes)
        return sorted(ids)

    def _told(self, *listing: str) -> list[str]:
        """Words of a listing; none where the plugin that has it is blocked."""
        done = self.docker(*listing, check=False)
        if done.returncode != 0 and "page not found" not in done.stderr:
            raise CommandFailed(f"$ docker {' '.join(listing)}\n{done.stdout}{done.stderr}")
        return done.stdout.split()
