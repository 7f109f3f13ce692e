"""Digests, waits, credentials."""

from __future__ import annotations

import base64
import email.utils
import time

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.registry import Credentials
from plugins.registry import digests
from plugins.registry.tokens import Identity, Token, TokenCache
from plugins.registry.transport import BACK_OFF, request_name, wait_for


@pytest.mark.parametrize(
    "bad",
    ["", "sha256", "sha256:", "sha256:abc", "sha256:" + "G" * 64, "md5:" + "0" * 32, "sha256:" + "0" * 63 + "/", "../sha256:" + "0" * 64],
)  # fmt: skip
def test_digests_that_cannot_be_verified(bad: str) -> None:
    with pytest.raises(InvalidParameter, match="digest"):
        digests.check(bad)


async def test_digest_of_small_and_large() -> None:
    assert await digests.of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    digester = digests.Digester()
    for piece in (b"a" * 10, b"b" * 200_000, b"c"):
        await digester.update(piece)
    assert digester.digest == await digests.of(b"a" * 10 + b"b" * 200_000 + b"c")
    assert digester.size == 200_011


def test_waits() -> None:
    assert [wait_for(attempt, None) for attempt in range(1, len(BACK_OFF) + 2)] == [*BACK_OFF, None]
    assert wait_for(1, "2") == 2.0
    assert wait_for(1, "0") == BACK_OFF[0]
    assert wait_for(1, "3600") is None
    assert wait_for(1, "rubbish") == BACK_OFF[0]
    soon = wait_for(1, email.utils.formatdate(time.time() + 10, usegmt=True))
    assert soon is not None
    assert 8 < soon <= 10


def test_identity() -> None:
    encoded = base64.b64encode(b"me:se:cret").decode()
    assert Identity.of(Credentials(auth=encoded)) == Identity("me", "se:cret")
    assert Identity.of(Credentials(username="a", password="b", auth=encoded)) == Identity("a", "b")
    assert Identity.of(Credentials()).basic == ""
    assert Identity("a", "b").fingerprint() != Identity("a", "", "b").fingerprint()
    for bad in ("%%%", base64.b64encode(b"no colon").decode()):
        with pytest.raises(InvalidParameter, match="invalid auth"):
            Identity.of(Credentials(auth=bad))


def test_tokens_expire_and_are_bounded() -> None:
    cache = TokenCache()
    cache.put(("old",), Token("x", until=time.monotonic() - 1))
    assert cache.get(("old",)) is None
    for number in range(2000):
        cache.put((str(number),), Token("x", until=time.monotonic() + 60))
    assert cache.get(("0",)) is None
    assert cache.get(("1999",)) is not None


def test_no_secret_in_a_request_name() -> None:
    assert request_name("GET", "https://me:secret@host/v2/?sig=secret#x") == 'Get "https://host/v2/"'
