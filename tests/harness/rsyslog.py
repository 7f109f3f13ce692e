"""Debian's rsyslog, started by hand with a configuration and a folder of its own.

with Rsyslog(tmp_path, netns=engine.netns) as server:
    ... syslog-address=udp://127.0.0.1:{server.ports["udp"]} ...
    server.messages("udp")  # bytes as they came
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from harness.certificates import make_certificates

_CONFIG = """
global(workDirectory="{folder}" maxMessageSize="64k" debug.whitelist="on"
  defaultNetstreamDriverCAFile="{folder}/ca.pem" defaultNetstreamDriverCertFile="{folder}/server.pem"
  defaultNetstreamDriverKeyFile="{folder}/server-key.pem" parser.escapeControlCharactersOnReceive="off")
main_queue(queue.type="Direct")
module(load="imudp")
module(load="imptcp")
module(load="imuxsock" sysSock.use="off")
module(load="imtcp" maxSessions="100" streamDriver.name="gtls" streamDriver.mode="1"
  streamDriver.authMode="x509/certvalid")
template(name="raw" type="list") {{ property(name="rawmsg") constant(value="\\n") }}
template(name="parsed" type="string" string="%pri%\\t%protocol-version%\\t%timestamp:::date-rfc3339%\\t%hostname%\\t%app-name%\\t%procid%\\t%msgid%\\t%msg%\\n")
{inputs}
"""
_INPUT = """
input(type="{module}" {options} ruleset="{name}")
ruleset(name="{name}") {{
  action(type="omfile" file="{folder}/{name}.raw" template="raw" asyncWriting="off" flushOnTXEnd="on")
  action(type="omfile" file="{folder}/{name}.parsed" template="parsed" asyncWriting="off" flushOnTXEnd="on")
}}
"""


class Rsyslog:
    """Runs from the beginning of the context to its end. Inputs: udp, tcp, tls (wants a client's certificate by `ca.pem`),
    unix, unixgram.

    Attributes:
        ports: of udp, tcp and tls, on 127.0.0.1.
        sockets: paths of unix and unixgram.
        folder: with the certificates of `make_certificates`.
    """

    def __init__(self, folder: Path, netns: Path | None = None) -> None:
        self.folder = folder / "rsyslog"
        self.folder.mkdir()
        make_certificates(self.folder)
        self.ports = dict(zip(("udp", "tcp", "tls"), _free_ports(3), strict=True))
        self.sockets = {name: self.folder / f"{name}.sock" for name in ("unix", "unixgram")}
        self._enter = ["nsenter", f"--net={netns}"] if netns else []
        self._process: subprocess.Popen[bytes] | None = None
        inputs = {
            "udp": ("imudp", f'address="127.0.0.1" port="{self.ports["udp"]}" rcvbufSize="4m"'),
            "tcp": ("imptcp", f'address="127.0.0.1" port="{self.ports["tcp"]}"'),
            "tls": ("imtcp", f'address="127.0.0.1" port="{self.ports["tls"]}"'),
            "unix": ("imptcp", f'path="{self.sockets["unix"]}" unlink="on"'),
            "unixgram": ("imuxsock", f'socket="{self.sockets["unixgram"]}" rateLimit.interval="0" unlink="on"'),
        }
        self._config = self.folder / "rsyslog.conf"
        self._config.write_text(
            _CONFIG.format(
                folder=self.folder,
                inputs="".join(
                    _INPUT.format(module=module, options=options, name=name, folder=self.folder)
                    for name, (module, options) in inputs.items()
                ),
            )
        )

    def start(self) -> None:
        """Start; returns when it listens."""
        for path in self.sockets.values():
            path.unlink(missing_ok=True)
        pid = self.folder / "pid"
        pid.unlink(missing_ok=True)
        log = (self.folder / "errors").open("ab")
        command = [*self._enter, "rsyslogd", "-n", "-f", str(self._config), "-i", str(pid)]
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 20
        while not all(path.exists() for path in self.sockets.values()) or not pid.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"rsyslogd does not run: {(self.folder / 'errors').read_text()}")
            time.sleep(0.05)
        time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def raw(self, name: str) -> bytes:
        """All messages of an input as they came, a line each."""
        path = self.folder / f"{name}.raw"
        return path.read_bytes() if path.exists() else b""

    def messages(self, name: str) -> list[bytes]:
        """`raw`, in lines."""
        return self.raw(name).split(b"\n")[:-1]

    def parsed(self, name: str) -> list[list[str]]:
        """What rsyslog understood: pri, protocol version, time, host, app-name, procid, msgid, msg."""
        path = self.folder / f"{name}.parsed"
        return [row.split("\t", 7) for row in path.read_text(errors="replace").splitlines()] if path.exists() else []

    def __enter__(self) -> Rsyslog:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _free_ports(count: int) -> list[int]:
    made = [socket.socket() for _ in range(count)]
    for one in made:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in made]
    for one in made:
        one.close()
    return ports
