"""The service against Debian's docker-registry: pushes and pulls, damage, restarts, mounts, tokens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from harness import Client, Registry, TokenAuth, eventually

from plugin_sdk import EngineError, Forbidden, InvalidParameter, NotFound, Unauthorized, Unavailable
from plugin_sdk.reference import parse
from plugin_sdk.registry import LAYER_GZIP, MANIFEST, OCI_INDEX, OCI_MANIFEST, PLUGIN_CONFIG, Credentials, Repository
from plugins.registry.service import Registries
from plugins.registry.settings import Settings

pytestmark = pytest.mark.real

ANYBODY = Credentials()
ME = Credentials(username="me", password="secret")


@pytest.fixture
def registry(real_host: None) -> Iterator[Registry]:
    with Registry() as started:
        yield started


@asynccontextmanager
async def repository(
    registry: Registry,
    path: str = "me/app",
    credentials: Credentials = ANYBODY,
    *,
    push: bool = False,
    service: Registries | None = None,
    kind: str = "plugin",
) -> AsyncIterator[Repository]:
    service = service or Registries(Settings(), "engine/test")
    found = service.repository(parse(f"{registry.host}/{path}"), credentials, kind=kind, push=push)
    try:
        yield found
    finally:
        await found.close()


async def pieces(data: bytes, step: int = 70_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), step):
        yield data[start : start + step]


async def read(source: Repository, digest: str, size: int | None = None) -> bytes:
    async with source.blob(digest, size) as got:
        return b"".join([piece async for piece in got])


async def push(target: Repository, layer: bytes, tag: str = "1.0", media_type: str = MANIFEST) -> tuple[str, str]:
    """Config, one layer, manifest; gives the digests of manifest and layer."""
    config = b'{"description":"test"}'
    config_digest, config_size = await target.put_blob(pieces(config))
    layer_digest, layer_size = await target.put_blob(pieces(layer))
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": PLUGIN_CONFIG, "digest": config_digest, "size": config_size},
        "layers": [{"mediaType": LAYER_GZIP, "digest": layer_digest, "size": layer_size}],
    }
    return await target.put_manifest(tag, media_type, json.dumps(document).encode()), layer_digest


@pytest.mark.parametrize("options", [{}, {"users": {"me": "secret"}}, {"tls": True}], ids=["plain", "htpasswd", "tls"])
async def test_push_and_pull(real_host: None, options: dict) -> None:
    layer = os.urandom(3 << 20)
    credentials = ME if "users" in options else ANYBODY
    with Registry(**options) as registry:
        async with repository(registry, credentials=credentials, push=True) as target:
            digest, layer_digest = await push(target, layer)
        async with repository(registry, credentials=credentials) as source:
            by_tag, by_digest = await source.manifest("1.0"), await source.manifest(digest)
            assert by_tag == by_digest
            assert (by_tag.digest, by_tag.media_type) == (digest, MANIFEST)
            assert by_tag.document()["config"]["mediaType"] == PLUGIN_CONFIG
            assert await source.blob_size(layer_digest) == len(layer)
            assert await source.blob_size("sha256:" + "0" * 64) is None
            assert await read(source, layer_digest, len(layer)) == layer
            with pytest.raises(NotFound, match=r"manifest for .*/me/app:2.0 not found: manifest unknown"):
                await source.manifest("2.0")
            nobody = "sha256:" + "0" * 64
            with pytest.raises(NotFound, match=f"manifest for .*/me/app@{nobody} not found: manifest unknown"):
                await source.manifest(nobody)


async def test_an_empty_blob_and_many_at_once(registry: Registry) -> None:
    blobs = [b"", b"x", *(os.urandom(size) for size in (1000, 70_000, 600_000, 5 << 20))]
    async with repository(registry, push=True) as target:
        put = await asyncio.gather(*(target.put_blob(pieces(blob)) for blob in blobs))
        assert put == [(f"sha256:{hashlib.sha256(blob).hexdigest()}", len(blob)) for blob in blobs]
        assert await asyncio.gather(*(read(target, digest, size) for digest, size in put)) == blobs


async def test_an_index_is_pulled_as_an_index(registry: Registry) -> None:
    async with repository(registry, push=True) as target:
        one, _ = await push(target, b"one", "one", OCI_MANIFEST)
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{"digest": one, "mediaType": OCI_MANIFEST}]}
        index["manifests"][0] |= {"size": len((await target.manifest(one)).raw)}
        await target.put_manifest("all", OCI_INDEX, json.dumps(index).encode())
        assert (await target.manifest("all")).media_type == OCI_INDEX


async def test_a_damaged_blob_is_not_taken(registry: Registry) -> None:
    layer = os.urandom(100_000)
    async with repository(registry, push=True) as target:
        _, digest = await push(target, layer)
        registry.blob(digest).write_bytes(layer[:-1] + bytes([layer[-1] ^ 1]))
        with pytest.raises(InvalidParameter, match=f"blob {digest} of .*verification failed"):
            await read(target, digest)


async def test_a_pull_survives_a_restart_of_the_registry(registry: Registry) -> None:
    layer = os.urandom(48 << 20)
    async with repository(registry, push=True) as target:
        _, digest = await push(target, layer)
    got: list[bytes] = []
    async with repository(registry) as source, source.blob(digest, len(layer)) as blob:
        async for piece in blob:
            got.append(piece)
            if len(got) == 2:
                await asyncio.to_thread(registry.stop)
                await asyncio.to_thread(registry.start)
    assert b"".join(got) == layer
    assert registry.log().count(f"GET /v2/me/app/blobs/{digest}") >= 1, "the new one was never asked"


async def test_a_blob_left_early_does_no_harm(registry: Registry) -> None:
    layer = os.urandom(20 << 20)
    async with repository(registry, push=True) as target:
        _, digest = await push(target, layer)
        async with target.blob(digest) as blob:
            async for _ in blob:
                break
        assert await read(target, digest, len(layer)) == layer


async def test_a_push_that_is_cancelled(registry: Registry) -> None:
    """It ends at once, on the wire too, and the repository object can go on."""
    began = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            began.set()
            yield b"x" * 100_000
            await asyncio.sleep(0.01)

    async with repository(registry, push=True) as target:
        task = asyncio.create_task(target.put_blob(endless()))
        await began.wait()
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        eventually(lambda: "DELETE /v2/me/app/blobs/uploads/" in registry.log(), what="the upload is given up")
        assert re.search(r'"PATCH /v2/me/app/blobs/uploads/.*" [45]\d\d', registry.log())
        await push(target, b"x")


async def test_a_blob_is_mounted_from_a_neighbour(registry: Registry) -> None:
    layer = os.urandom(50_000)
    async with repository(registry, "me/one", push=True) as one, repository(registry, "me/two", push=True) as two:
        _, digest = await push(one, layer)
        assert await two.blob_size(digest) is None
        assert await two.mount_blob(digest, parse(f"{registry.host}/me/one"))
        assert await read(two, digest, len(layer)) == layer
        assert not await two.mount_blob(digest, parse("elsewhere.test/me/one"))
        assert not await two.mount_blob("sha256:" + "0" * 64, parse(f"{registry.host}/me/one"))


async def test_credentials_missing_or_wrong(real_host: None) -> None:
    with Registry(users={"me": "secret"}) as registry:
        async with repository(registry) as anonymous:
            with pytest.raises(
                Unauthorized, match="pull access denied for .*/me/app, repository does not exist or may"
            ):
                await anonymous.manifest("1.0")
        async with repository(registry, credentials=Credentials(username="me", password="x"), push=True) as wrong:
            with pytest.raises(Unauthorized, match=r"push access denied for .*/me/app.*authentication required"):
                await wrong.put_blob(pieces(b"x"))


async def test_a_registry_that_is_gone(registry: Registry) -> None:
    registry.stop()
    began = time.monotonic()
    async with repository(registry) as source:
        with pytest.raises(Unavailable) as raised:
            await source.manifest("1.0")
    host = registry.host
    assert str(raised.value) == (
        f'failed to do request: Get "http://{host}/v2/me/app/manifests/1.0": dial tcp {host}: connect: connection refused'
    )
    assert time.monotonic() - began < 2


async def test_a_name_that_nobody_has(real_host: None) -> None:
    service = Registries(Settings(), "engine/test")
    source = service.repository(parse("registry.invalid/me/app"), Credentials())
    try:
        with pytest.raises(Unavailable, match=r'Get "https://registry\.invalid/v2/.*: lookup registry\.invalid'):
            await source.manifest("1")
    finally:
        await source.close()


# --- tokens


@dataclass
class TokenServer:
    """A token server: "me" may do anything, others may pull what lies under "public/"."""

    folder: Path
    life: int = 300
    scopes: list[str] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        subject = ["-subj", "/CN=token signer", "-days", "2", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"]
        self._openssl("req", "-x509", "-newkey", "rsa:2048", *subject)
        self._certificate = base64.b64encode(self._openssl("x509", "-in", "cert.pem", "-outform", "DER")).decode()

    def _openssl(self, *arguments: str, input: bytes = b"") -> bytes:
        done = subprocess.run(
            ["openssl", *arguments], cwd=self.folder, input=input, check=True, capture_output=True, timeout=30
        )
        return done.stdout

    def token(self, user: str, scopes: list[str]) -> str:
        """A signed JWT for what `user` may do of the scopes."""
        access = []
        for scope in scopes:
            kind, _, name, actions = re.fullmatch(r"(\w+)(\(\w+\))?:(.+):(.+)", scope).groups()
            granted = actions.split(",") if user else ["pull"] if name.startswith("public/") else []
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {"iss": "test issuer", "sub": user, "aud": "test registry", "jti": secrets.token_hex(8)}
        claims |= {"iat": now, "nbf": now - 5, "exp": now + self.life, "access": access}
        head = {"typ": "JWT", "alg": "RS256", "x5c": [self._certificate]}
        signed = ".".join(_part(json.dumps(part).encode()) for part in (head, claims))
        return f"{signed}.{_part(self._openssl('dgst', '-sha256', '-sign', 'key.pem', input=signed.encode()))}"

    @contextmanager
    def running(self) -> Iterator[TokenServer]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                proof = self.headers.get("Authorization", "")
                right = "Basic " + base64.b64encode(b"me:secret").decode()
                outer.scopes += query.get("scope", [])
                if proof and proof != right:
                    return self.tell(401, {"details": "incorrect username or password"})
                told = {"token": outer.token("me" if proof else "", query.get("scope", [])), "expires_in": outer.life}
                if query.get("offline_token"):
                    told["refresh_token"] = "identity-of-me"
                return self.tell(200, told)

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                outer.scopes += form.get("scope", [])
                if form.get("refresh_token") != ["identity-of-me"]:
                    return self.tell(401, {"error": "invalid_grant", "error_description": "unknown identity"})
                return self.tell(200, {"access_token": outer.token("me", form.get("scope", []))})

            def tell(self, status: int, document: dict) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, *told: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}/token"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def tokens(real_host: None, tmp_path: Path) -> Iterator[TokenServer]:
    with TokenServer(tmp_path).running() as server:
        yield server


@pytest.fixture
def guarded(tokens: TokenServer, tmp_path: Path) -> Iterator[Registry]:
    with Registry(token=TokenAuth(tokens.url, tmp_path / "cert.pem")) as registry:
        yield registry


async def test_tokens(guarded: Registry, tokens: TokenServer) -> None:
    service = Registries(Settings(), "engine/test")
    async with repository(guarded, "public/app", ME, push=True, service=service) as target:
        digest, layer = await push(target, b"a layer")
    assert tokens.scopes == ["repository(plugin):public/app:pull,push"], "one token is enough for one push"

    async with repository(guarded, "public/app", service=service, kind="image") as anonymous:
        assert (await anonymous.manifest(digest)).digest == digest
    async with repository(guarded, "public/app", service=service, kind="image") as again:
        assert await read(again, layer) == b"a layer"
    assert tokens.scopes[1:] == ["repository:public/app:pull"], "tokens are kept beyond one repository object"


async def test_tokens_that_do_not_do(guarded: Registry) -> None:
    async def refused(path: str, credentials: Credentials, *, push: bool) -> EngineError:
        async with repository(guarded, path, credentials, push=push) as source:
            with pytest.raises(EngineError) as raised:
                await (source.put_blob(pieces(b"x")) if push else source.manifest("1"))
        return raised.value

    hidden = await refused("private/app", Credentials(), push=False)
    assert isinstance(hidden, NotFound)
    assert str(hidden).startswith(
        f"pull access denied for {guarded.host}/private/app, repository does not exist or may require 'docker login': denied"
    )
    assert isinstance(await refused("public/app", Credentials(), push=True), Forbidden)
    wrong = await refused("public/app", Credentials(username="me", password="no"), push=False)
    assert isinstance(wrong, Unauthorized)
    assert str(wrong).endswith("unauthorized: incorrect username or password")


async def test_a_login_gives_an_identity_token(guarded: Registry) -> None:
    service = Registries(Settings(), "engine/test")
    identity = await service.login(ME.model_copy(update={"serveraddress": guarded.host}))
    assert identity == "identity-of-me"
    async with repository(
        guarded, "mine/app", Credentials(identitytoken=identity), push=True, service=service
    ) as target:
        await push(target, b"x")
    with pytest.raises(Unauthorized, match="unauthorized: incorrect username or password"):
        await service.login(Credentials(username="me", password="no", serveraddress=guarded.host))
    with pytest.raises(Unauthorized, match="unknown identity"):
        await service.login(Credentials(identitytoken="stolen", serveraddress=guarded.host))


# --- /distribution


async def test_inspecting_what_a_registry_has(engine: Client) -> None:
    config = {"architecture": "arm64", "os": "linux", "variant": "v8"}
    with Registry(netns=engine.netns, users={"me": "secret"}) as registry:
        raw = json.dumps(config).encode()
        blob = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}
        document["config"] = {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": blob,
            "size": len(raw),
        }
        manifest = json.dumps(document)
        _seed(engine, registry, blob, raw.decode(), manifest)

        header = base64.urlsafe_b64encode(ME.model_dump_json().encode()).decode()
        path = f"/distribution/{registry.host}/me/app:1/json"
        told = engine.http("GET", path, headers={"X-Registry-Auth": header})
        assert told.status == 200, told.body
        assert told.json() == {
            "Descriptor": {
                "mediaType": OCI_MANIFEST,
                "digest": f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}",
                "size": len(manifest),
            },
            "Platforms": [config],
        }
        assert engine.http("GET", path).status == 401
        missing = engine.http("GET", path.replace(":1/", ":2/"), headers={"X-Registry-Auth": header})
        assert (missing.status, missing.message) == (
            404,
            f"manifest for {registry.host}/me/app:2 not found: manifest unknown: manifest unknown",
        )
        assert engine.http("GET", "/distribution/UPPER/json").status == 400


_SEEDER = """
import base64, sys, urllib.request
host, blob, config, kind, manifest = sys.argv[1:]
proof = "Basic " + base64.b64encode(b"me:secret").decode()
def send(method, url, data=b"", kind="application/octet-stream"):
    headers = {"Authorization": proof, "Content-Type": kind}
    return urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=10)
base = f"http://{host}/v2/me/app"
location = send("POST", base + "/blobs/uploads/").headers["Location"]
send("PUT", f"{location}&digest={blob}", config.encode())
send("PUT", base + "/manifests/1", manifest.encode(), kind)
"""


def _seed(engine: Client, registry: Registry, blob: str, config: str, manifest: str) -> None:
    """Push by other hands, in the engine's network namespace."""
    engine.nsenter([sys.executable, "-c", _SEEDER, registry.host, blob, config, OCI_MANIFEST, manifest])
