"""Registries that lie, break off, are busy, or want to be given what is not theirs: a scripted server on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from plugin_sdk import InvalidParameter, NotFound, TooLarge, Unauthorized, Unavailable
from plugin_sdk.reference import parse
from plugin_sdk.registry import MANIFEST, Credentials, Repository
from plugins.registry import download, transport
from plugins.registry.service import Registries
from plugins.registry.settings import Settings

ANYBODY = Credentials()
ME = Credentials(username="me", password="secret")
CONTENT = bytes(range(256)) * 8192  # 2 MiB
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
RAW_MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": []}).encode()


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[Asked], "bytes | list[bytes]"]
"""Gives an answer; a list is sent piece by piece, slowly."""


def answer(status: int = 200, body: bytes = b"", /, length: int | None = None, **headers: str) -> bytes:
    """An HTTP answer; underscores in names of headers become dashes."""
    lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


class Server:
    """Answers each request as its script says, and remembers what it was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []

    @property
    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(1)
            if first == b"\x16":  # a TLS handshake
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
            start, *lines = head.strip().split("\r\n")
            method, path, _ = start.split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await _body(reader, headers)
            asked = Asked(method, path, headers, body)
            self.asked.append(asked)
            told = self.script(asked)
            for piece in told if isinstance(told, list) else [told]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.03 if isinstance(told, list) else 0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has heard enough
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.host = "127.0.0.1:" + str(server.sockets[0].getsockname()[1])
        try:
            yield self
        finally:
            server.close()


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", 0)))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


Using = Callable[..., Awaitable["tuple[Server, Repository]"]]


@pytest.fixture
async def using(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Using]:
    """`await using(script)` gives a server and a repository "me/app" there."""
    monkeypatch.setattr(transport, "BACK_OFF", (0.01, 0.01, 0.01))
    monkeypatch.setattr(download, "BACK_OFF", (0.01, 0.01, 0.01))
    ends: list[Callable[[], Awaitable[object]]] = []

    async def make(
        script: Script, credentials: Credentials = ANYBODY, push: bool = False, kind: str = "image", **settings: object
    ) -> tuple[Server, Repository]:
        running = Server(script).running()
        server = await running.__aenter__()
        service = Registries(Settings(registry_certs_dir=tmp_path, **settings), "engine/test")
        repository = service.repository(parse(f"{server.host}/me/app"), credentials, kind=kind, push=push)
        ends.extend([lambda: running.__aexit__(None, None, None), repository.close])
        return server, repository

    yield make
    for end in reversed(ends):
        await end()


async def read_blob(repository: Repository, digest: str = DIGEST, size: int | None = None) -> bytes:
    async with repository.blob(digest, size) as pieces:
        return b"".join([piece async for piece in pieces])


# --- manifests


async def test_a_manifest_that_is_not_what_its_digest_says(using: Using) -> None:
    _, repository = await using(lambda _: answer(200, RAW_MANIFEST, Content_Type=MANIFEST))
    with pytest.raises(InvalidParameter, match="manifest verification failed for digest sha256:0000"):
        await repository.manifest("sha256:" + "0" * 64)


async def test_a_manifest_that_is_not_what_its_header_says(using: Using) -> None:
    said = {"Content_Type": MANIFEST, "Docker_Content_Digest": "sha256:" + "1" * 64}
    _, repository = await using(lambda _: answer(200, RAW_MANIFEST, **said))
    with pytest.raises(InvalidParameter, match="verification failed"):
        await repository.manifest("1")


@pytest.mark.parametrize(
    ("content_type", "document", "message"),
    [
        ("application/vnd.oci.image.index.v1+json", {"mediaType": MANIFEST}, "is declared as"),
        (MANIFEST, {"layers": [], "manifests": []}, "both a manifest and an index"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", {}, "has the media type"),
        ("text/html", "<html>", "is not JSON"),
        (MANIFEST, [], "no JSON object"),
    ],
)
async def test_a_manifest_of_two_minds(using: Using, content_type: str, document: object, message: str) -> None:
    raw = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    _, repository = await using(lambda _: answer(200, raw, Content_Type=content_type))
    with pytest.raises(InvalidParameter, match=message):
        await repository.manifest("1")


async def test_a_manifest_nested_too_deep(using: Using) -> None:
    _, repository = await using(lambda _: answer(200, b"[" * 100_000, Content_Type=MANIFEST))
    with pytest.raises(InvalidParameter, match="not JSON"):
        await repository.manifest("1")


@pytest.mark.parametrize("told", [True, False])
async def test_a_manifest_without_end(using: Using, told: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + (b"Content-Length: 99999999999\r\n" if told else b"") + b"\r\n"
    _, repository = await using(lambda _: head + b" " * (5 << 20))
    with pytest.raises(TooLarge, match="larger than the 4194304 bytes"):
        await repository.manifest("1")


async def test_what_is_no_http(using: Using) -> None:
    _, repository = await using(lambda _: b"SSH-2.0-OpenSSH_9\r\n\r\n")
    with pytest.raises(InvalidParameter, match="malformed HTTP response"):
        await repository.manifest("1")


@pytest.mark.parametrize(
    "reference", ["../../../other/manifests/1", "a b", "", "sha256:zz", "md5:" + "0" * 32, "x?y=z"]
)
async def test_references_that_would_lead_elsewhere(using: Using, reference: str) -> None:
    server, repository = await using(lambda _: answer(404))
    with pytest.raises(InvalidParameter):
        await repository.manifest(reference)
    assert server.asked == []


# --- being busy, breaking off


async def test_a_busy_registry_is_asked_again(using: Using) -> None:
    answers = [answer(503), answer(429, b"", Retry_After="0"), answer(200, RAW_MANIFEST, Content_Type=MANIFEST)]
    server, repository = await using(lambda _: answers.pop(0))
    assert (await repository.manifest("1")).raw == RAW_MANIFEST
    assert len(server.asked) == 3


async def test_a_registry_that_stays_busy(using: Using) -> None:
    server, repository = await using(lambda _: answer(503))
    with pytest.raises(Unavailable, match="status 503"):
        await repository.manifest("1")
    assert len(server.asked) == 4


async def test_a_long_retry_after_is_not_waited_for(using: Using) -> None:
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate limit"}]}).encode()
    server, repository = await using(lambda _: answer(429, body, Retry_After="21600"))
    with pytest.raises(Unavailable, match="toomanyrequests: pull rate limit"):
        await repository.manifest("1")
    assert len(server.asked) == 1


def cut(asked: Asked, most: int) -> bytes:
    """At most so many bytes of the blob, from where it was asked for; then the connection breaks."""
    offset = int(asked.headers["range"].removeprefix("bytes=").rstrip("-")) if "range" in asked.headers else 0
    rest = CONTENT[offset:]
    span = f"bytes {offset}-{len(CONTENT) - 1}/{len(CONTENT)}"
    return answer(206 if offset else 200, rest[:most], length=len(rest), Content_Range=span)


async def test_a_blob_goes_on_where_it_broke(using: Using) -> None:
    server, repository = await using(lambda asked: cut(asked, 700_000))
    assert await read_blob(repository, size=len(CONTENT)) == CONTENT
    assert [asked.headers.get("range") for asked in server.asked] == [None, "bytes=700000-", "bytes=1400000-"]


async def test_a_registry_that_knows_no_ranges(using: Using) -> None:
    lengths = [500_000, 1_000_000, len(CONTENT)]

    def script(asked: Asked) -> bytes:
        return answer(200, CONTENT[: lengths.pop(0)], length=len(CONTENT))

    _, repository = await using(script)
    assert await read_blob(repository) == CONTENT


async def test_a_blob_that_breaks_without_end(using: Using) -> None:
    server, repository = await using(lambda asked: cut(asked, 10), max_download_attempts=3)
    with pytest.raises(Unavailable, match="broke off at byte 30, 3 times"):
        await read_blob(repository)
    assert len(server.asked) == 3


async def test_a_range_that_was_not_asked_for(using: Using) -> None:
    def script(asked: Asked) -> bytes:
        if "range" not in asked.headers:
            return cut(asked, 1000)
        return answer(206, CONTENT[5:], Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")

    _, repository = await using(script)
    with pytest.raises(InvalidParameter, match="asked for what follows byte 1000"):
        await read_blob(repository)


async def test_a_slow_drip_is_cut_off(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "READ_TIMEOUT", 0.2)
    drip = [answer(200, length=1000).replace(b"Content-Length: 0\r\n", b""), *[b"x"] * 200]
    server, repository = await using(lambda _: drip, max_download_attempts=2)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="broke off at byte .*only [0-9]+ bytes came"):
            await read_blob(repository)
    assert len(server.asked) == 2


# --- blobs that lie


async def test_a_blob_of_other_content(using: Using) -> None:
    _, repository = await using(lambda _: answer(200, CONTENT[:-1] + b"x"))
    with pytest.raises(InvalidParameter, match="verification failed"):
        await read_blob(repository)


async def test_a_blob_without_end(using: Using) -> None:
    _, repository = await using(lambda _: b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * (8 << 20))
    with pytest.raises(InvalidParameter, match=f"more than the {len(CONTENT)} bytes"):
        await read_blob(repository, size=len(CONTENT))


async def test_a_blob_of_another_length(using: Using) -> None:
    _, repository = await using(lambda _: answer(200, CONTENT))
    with pytest.raises(InvalidParameter, match=f"has {len(CONTENT)} bytes, 5 are expected"):
        await read_blob(repository, size=5)


async def test_a_missing_blob(using: Using) -> None:
    _, repository = await using(lambda _: answer(404))
    assert await repository.blob_size(DIGEST) is None
    with pytest.raises(NotFound, match=f"blob {DIGEST} of .*/me/app not found: blob unknown"):
        await read_blob(repository)


# --- where secrets go


def wants_basic(asked: Asked) -> bytes | None:
    return None if "authorization" in asked.headers else answer(401, b"", WWW_Authenticate='Basic realm="x"')


async def test_redirects_are_followed_without_credentials(using: Using) -> None:
    other, _ = await using(lambda _: answer(200, CONTENT))
    server, repository = await using(
        lambda asked: wants_basic(asked) or answer(307, b"", Location=f"http://{other.host}/store?sig=1%2F2"), ME
    )
    assert await read_blob(repository) == CONTENT
    assert server.asked[-1].headers["authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()
    assert [asked.path for asked in other.asked] == ["/store?sig=1%2F2"]
    assert "authorization" not in other.asked[0].headers


async def test_another_host_gets_no_credentials_by_asking(using: Using) -> None:
    other, _ = await using(lambda _: answer(401, b"", WWW_Authenticate='Basic realm="x"'))
    _, repository = await using(
        lambda asked: wants_basic(asked) or answer(307, b"", Location=f"http://{other.host}/store"), ME
    )
    with pytest.raises(Unauthorized):
        await read_blob(repository)
    assert [asked.headers.get("authorization") for asked in other.asked] == [None]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/", "gopher://x", "http://u:p@x/", "https:///x"])
async def test_redirects_to_odd_places(using: Using, location: str) -> None:
    _, repository = await using(lambda _: answer(307, b"", Location=location))
    with pytest.raises(InvalidParameter, match="redirects to"):
        await read_blob(repository)


async def test_redirects_in_a_circle(using: Using) -> None:
    server, repository = await using(lambda _: answer(307, b"", Location="/v2/again"))
    with pytest.raises(InvalidParameter, match="stopped after 5 redirects"):
        await read_blob(repository)
    assert len(server.asked) == 6


async def test_wrong_credentials_are_sent_once(using: Using) -> None:
    server, repository = await using(lambda _: answer(401, b"", WWW_Authenticate='Basic realm="x"'), ME)
    with pytest.raises(
        Unauthorized, match="pull access denied for .*/me/app, repository does not exist or may require"
    ):
        await repository.manifest("1")
    assert len(server.asked) == 2


# --- tokens


class TokenServer:
    """A registry and its token server in one script."""

    def __init__(self, **told: object) -> None:
        self.told = {"token": "good", "expires_in": 300, **told}
        self.accepted = {"Bearer good"}
        self.issued = 0

    def __call__(self, asked: Asked) -> bytes:
        if asked.path.startswith("/token"):
            self.issued += 1
            return answer(200, json.dumps(self.told).encode())
        if asked.headers.get("authorization") not in self.accepted:
            realm = f"http://{asked.headers['host']}/token"
            return answer(401, b"", WWW_Authenticate=f'Bearer realm="{realm}",service="the registry"')
        return answer(200, RAW_MANIFEST, Content_Type=MANIFEST)


async def test_a_token_is_fetched_once_and_kept(using: Using) -> None:
    script = TokenServer()
    server, repository = await using(script, ME, kind="plugin", push=True)
    for _ in range(3):
        await repository.manifest("1")
    assert server.paths == [
        "GET /v2/me/app/manifests/1",
        "GET /token?service=the+registry&scope=repository%28plugin%29%3Ame%2Fapp%3Apull%2Cpush&account=me",
        *["GET /v2/me/app/manifests/1"] * 3,
    ]
    assert server.asked[1].headers["authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()


async def test_a_token_that_is_refused_is_replaced_once(using: Using) -> None:
    script = TokenServer()
    server, repository = await using(script)
    await repository.manifest("1")
    script.accepted, script.told["token"] = {"Bearer newer"}, "newer"
    await repository.manifest("1")
    script.accepted = set()
    with pytest.raises(Unauthorized):
        await repository.manifest("1")
    assert script.issued == 3
    assert "authorization" not in server.asked[1].headers  # anonymous


async def test_an_identity_token_is_handed_in_by_post(using: Using) -> None:
    server, repository = await using(TokenServer(token="", access_token="good"), Credentials(identitytoken="id/1"))
    await repository.manifest("1")
    asked = server.asked[1]
    assert (asked.method, asked.path) == ("POST", "/token")
    assert asked.body == (
        b"grant_type=refresh_token&refresh_token=id%2F1&client_id=docker&service=the+registry"
        b"&scope=repository%3Ame%2Fapp%3Apull"
    )


async def test_a_registry_token_is_sent_as_it_is(using: Using) -> None:
    server, repository = await using(TokenServer(), Credentials(registrytoken="good"))
    await repository.manifest("1")
    assert server.paths == ["GET /v2/me/app/manifests/1"]


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", 7, "", None, "é"])
async def test_a_token_that_cannot_be(using: Using, token: object) -> None:
    _, repository = await using(TokenServer(token=token))
    with pytest.raises(InvalidParameter, match="gives no usable token"):
        await repository.manifest("1")


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "/token", "http://u:p@x/"])
async def test_token_servers_that_cannot_be(using: Using, realm: str) -> None:
    _, repository = await using(lambda _: answer(401, b"", WWW_Authenticate=f'Bearer realm="{realm}"'), ME)
    with pytest.raises(InvalidParameter, match="no usable token server"):
        await repository.manifest("1")


# --- uploads


async def whole(data: bytes, step: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), step):
        yield data[start : start + step]


def takes_uploads(asked: Asked) -> bytes:
    match asked.method:
        case "POST":
            return answer(202, b"", Location="/v2/me/app/blobs/uploads/1?_state=a%3D")
        case "PATCH":
            return answer(202, b"", Location="/v2/me/app/blobs/uploads/1?_state=b%3D")
        case "PUT":
            return answer(201)
    return answer(204)


async def test_an_upload(using: Using) -> None:
    server, repository = await using(takes_uploads, push=True)
    assert await repository.put_blob(whole(CONTENT)) == (DIGEST, len(CONTENT))
    assert server.paths == [
        "POST /v2/me/app/blobs/uploads/",
        "PATCH /v2/me/app/blobs/uploads/1?_state=a%3D",
        f"PUT /v2/me/app/blobs/uploads/1?_state=b%3D&digest={DIGEST.replace(':', '%3A')}",
    ]
    assert server.asked[1].body == CONTENT


async def test_a_source_that_fails_is_named_and_the_upload_given_up(using: Using) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield CONTENT
        raise NotFound("the layer is gone")

    server, repository = await using(takes_uploads, push=True)
    with pytest.raises(NotFound, match="the layer is gone"):
        await repository.put_blob(failing())
    assert server.paths[-1] == "DELETE /v2/me/app/blobs/uploads/1?_state=a%3D"


@pytest.mark.parametrize("location", ["", "file:///tmp/x", "ftp://x/y"])
async def test_an_upload_sent_to_an_odd_place(using: Using, location: str) -> None:
    _, repository = await using(lambda _: answer(202, b"", Location=location), push=True)
    with pytest.raises(InvalidParameter):
        await repository.put_blob(whole(CONTENT))


async def test_an_upload_sent_elsewhere_takes_no_credentials_along(using: Using) -> None:
    other, _ = await using(takes_uploads)

    def script(asked: Asked) -> bytes:
        return wants_basic(asked) or answer(202, b"", Location=f"http://{other.host}/v2/me/app/blobs/uploads/1")

    _, repository = await using(script, ME, push=True)
    await repository.put_blob(whole(CONTENT))
    assert [asked.method for asked in other.asked] == ["PATCH", "PUT"]
    assert not any("authorization" in asked.headers for asked in other.asked)


async def test_a_server_that_stops_reading(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    from plugins.registry import upload

    monkeypatch.setattr(upload, "READ_TIMEOUT", 0.3)
    monkeypatch.setattr(upload, "_CANCEL_TIMEOUT", 0.3)

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(4)
        if head[:1] == b"\x16":
            writer.close()
        elif head == b"POST":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(202, b"", Location="/v2/me/app/blobs/uploads/1"))
            writer.close()
        else:
            await asyncio.sleep(5)
            writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1024)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    repository = Registries(Settings(), "engine/test").repository(parse(f"{host}/me/app"), Credentials(), push=True)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * (1 << 20)

    try:
        async with asyncio.timeout(4):
            with pytest.raises(Unavailable, match="i/o timeout while sending"):
                await repository.put_blob(endless())
    finally:
        await repository.close()
        server.close()


# --- mirrors


async def test_a_mirror_comes_first_and_gets_no_credentials(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, _ = await using(
        lambda asked: answer(404) if asked.path.endswith("/2") else answer(200, RAW_MANIFEST, Content_Type=MANIFEST)
    )
    origin, _ = await using(lambda asked: wants_basic(asked) or answer(200, RAW_MANIFEST + b" ", Content_Type=MANIFEST))
    monkeypatch.setattr("plugins.registry.hosts.HUB", origin.host)
    service = Registries(Settings(registry_mirrors=[f"http://{mirror.host}/base"]), "engine/test")
    repository = service.repository(parse("busybox"), ME)
    try:
        assert (await repository.manifest("1")).raw == RAW_MANIFEST
        assert (await repository.manifest("2")).raw == RAW_MANIFEST + b" "
    finally:
        await repository.close()
    assert mirror.paths == [f"GET /base/v2/library/busybox/manifests/{tag}" for tag in "12"]
    assert not any("authorization" in asked.headers for asked in mirror.asked)
    assert origin.paths == ["GET /v2/library/busybox/manifests/2"] * 2


async def test_a_proxy_is_used_with_its_own_credentials(using: Using) -> None:
    proxy, _ = await using(lambda _: answer(200, RAW_MANIFEST, Content_Type=MANIFEST))
    settings = Settings(registry_mirrors=["http://mirror.test"], http_proxy=f"http://user:word@{proxy.host}")
    repository = Registries(settings, "engine/test").repository(parse("busybox"), ME)
    try:
        assert (await repository.manifest("1")).raw == RAW_MANIFEST
    finally:
        await repository.close()
    assert proxy.paths == ["GET http://mirror.test/v2/library/busybox/manifests/1"]
    assert proxy.asked[0].headers["proxy-authorization"] == "Basic " + base64.b64encode(b"user:word").decode()
    assert "authorization" not in proxy.asked[0].headers
