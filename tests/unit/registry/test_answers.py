"""A registry's refusals become the right errors, with dockerd's words."""

from __future__ import annotations

import json

import pytest

from plugin_sdk import (
    EngineError,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotSupported,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from plugins.registry.answers import Asked, error, read
from plugins.registry.challenge import parse

PULL = Asked("example.com/a/b", manifest=":1")
PUSH = Asked("example.com/a/b", push=True)


def document(code: str, message: str = "told") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()


@pytest.mark.parametrize(
    ("asked", "status", "raw", "kind", "message"),
    [
        (
            PULL, 404, document("MANIFEST_UNKNOWN", "manifest unknown"), NotFound,
            "manifest for example.com/a/b:1 not found: manifest unknown: manifest unknown",
        ),
        (PULL, 404, b"", NotFound, "manifest for example.com/a/b:1 not found: manifest unknown"),
        (PULL, 404, document("NAME_UNKNOWN"), NotFound, "repository example.com/a/b not found: name unknown: told"),
        (
            PULL, 403, document("DENIED"), NotFound,
            "pull access denied for example.com/a/b, repository does not exist or may require 'docker login': denied: told",
        ),
        (
            PULL, 401, document("UNAUTHORIZED"), Unauthorized,
            "pull access denied for example.com/a/b, repository does not exist or may require 'docker login':"
            " unauthorized: told",
        ),
        (
            PUSH, 403, document("DENIED"), Forbidden,
            "push access denied for example.com/a/b, it may require 'docker login': denied: told",
        ),
        (PULL, 429, b"<html>", Unavailable, "registry r:1 refuses example.com/a/b:1: toomanyrequests: too many requests"),
        (PULL, 503, b"", Unavailable, "registry r:1 refuses example.com/a/b:1: the registry answered with status 503"),
        (PUSH, 405, document("UNSUPPORTED"), NotSupported, "registry r:1 refuses example.com/a/b: unsupported: told"),
        (PUSH, 413, b"", TooLarge, "registry r:1 refuses example.com/a/b: size invalid: the registry does not take content of this size"),
        (PUSH, 400, document("MANIFEST_INVALID"), InvalidParameter, "registry r:1 refuses example.com/a/b: manifest invalid: told"),
        (Asked("r:1", login=True), 401, b'{"details":"incorrect username or password"}', Unauthorized, "login to r:1 failed: unauthorized: incorrect username or password"),
    ],
)  # fmt: skip
def test_error(asked: Asked, status: int, raw: bytes, kind: type[EngineError], message: str) -> None:
    raised = error(asked, "r:1", read(status, raw))
    assert type(raised) is kind
    assert str(raised) == message


def test_the_header_says_more_than_the_document() -> None:
    """Docker Hub answers 401 with insufficient_scope for a repository that does not exist."""
    challenges = parse(['Bearer realm="https://x",error="insufficient_scope"'])
    raised = error(PULL, "r:1", read(401, document("UNAUTHORIZED"), challenges))
    assert isinstance(raised, NotFound)
    assert str(raised).endswith("denied: requested access to the resource is denied")


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"errors":{}}',
        b'{"errors":[1]}',
        b'{"errors":[{"code":7}]}',
        b"\xff\xfe",
        b"null",
    ],
)
def test_rubbish_is_no_trouble(raw: bytes) -> None:
    assert str(error(PULL, "r:1", read(500, raw))).startswith("registry r:1 refuses example.com/a/b:1: ")


def test_nothing_steers_the_terminal_and_nothing_floods_it() -> None:
    refusal = read(400, document("X", "\x1b[2J\r\n\x9b31m" + "a" * 10_000))
    assert not any(sign in str(refusal) for sign in "\x1b\r\n\x9b")
    assert len(str(refusal)) < 1100
