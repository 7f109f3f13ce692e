"""A program for tests: docker-py talks with a container over one transport, in the engine's network namespace.

    python streams_client.py BASE_URL CERTIFICATES CONTAINER IMAGE

CERTIFICATES is a folder with ca.pem, client.pem and client-key.pem, or "". Prints what it saw as one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
from typing import Any

from docker import DockerClient
from docker.tls import TLSConfig
from docker.utils.socket import frames_iter

BIG = 4 << 20


def bare(hijacked: Any) -> socket.socket:
    """The socket below what docker-py gives."""
    return getattr(hijacked, "_sock", hijacked)


def end_of_input(connection: socket.socket) -> None:
    # The base class's own: SSLSocket's would forget its keys, and with them the answer.
    socket.socket.shutdown(connection, socket.SHUT_WR)


def talk(hijacked: Any, data: bytes) -> dict[int, bytes]:
    """Send, end the input, and read to the end."""
    connection = bare(hijacked)

    def send() -> None:
        connection.sendall(data)
        end_of_input(connection)

    sender = threading.Thread(target=send)
    if len(data) > 1 << 16 and not hasattr(connection, "context"):
        sender.start()
    else:  # an SSLSocket is not for two threads at once
        send()
    found: dict[int, bytes] = {}
    for stream, payload in frames_iter(hijacked, tty=False):
        found[stream] = found.get(stream, b"") + payload
    if sender.ident:
        sender.join()
    return found


def main() -> None:
    url, certificates, container, image = sys.argv[1:]
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests would prefer them to the given authority
        os.environ.pop(name, None)
    tls: Any = False
    if certificates:
        pair = (f"{certificates}/client.pem", f"{certificates}/client-key.pem")
        tls = TLSConfig(client_cert=pair, ca_cert=f"{certificates}/ca.pem", verify=True)
    client = DockerClient(base_url=url, tls=tls, version="auto", timeout=60)
    seen: dict[str, Any] = {}

    def execute(command: list[str], data: bytes) -> tuple[dict[int, bytes], int]:
        made = client.api.exec_create(container, command, stdin=True)["Id"]
        answer = talk(client.api.exec_start(made, socket=True), data)
        return answer, client.api.exec_inspect(made)["ExitCode"]

    answer, code = execute(["sh", "-c", "wc -c; echo err >&2; exit 3"], b"hi\n")
    seen["exec"] = [answer[1].decode().strip(), answer[2].decode(), code]
    data = os.urandom(BIG)
    answer, _ = execute(["sha256sum"], data)
    seen["sum"] = answer[1].split()[0].decode() == hashlib.sha256(data).hexdigest()
    if not certificates:
        answer, _ = execute(["cat"], data)
        seen["echo"] = answer[1] == data
    host = client.api.create_host_config(network_mode="none")
    made = client.api.create_container(image, ["sh", "-c", "cat; echo end"], stdin_open=True, host_config=host)["Id"]
    try:
        wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        attached = client.api.attach_socket(made, params=wanted)
        client.api.start(made)
        seen["run"] = [talk(attached, b"through ")[1].decode(), client.api.wait(made)["StatusCode"]]
    finally:
        client.api.remove_container(made, force=True)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
