"""`WWW-Authenticate`, as registries write it."""

from __future__ import annotations

import pytest

from plugins.registry.challenge import Challenge, parse


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Basic realm="Registry Realm"'], [Challenge("basic", {"realm": "Registry Realm"})]),
        (
            ['Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {"realm": "https://auth.example/token", "service": "reg", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        # One header with two challenges; spaces around signs; keys in capitals; an unquoted value.
        (
            ['BASIC Realm = "a, b" , Bearer realm=https://x/t , error = "invalid_token"'],
            [
                Challenge("basic", {"realm": "a, b"}),
                Challenge("bearer", {"realm": "https://x/t", "error": "invalid_token"}),
            ],
        ),
        (["Negotiate", 'Basic realm="x\\"y"'], [Challenge("negotiate"), Challenge("basic", {"realm": 'x"y'})]),
        (["", ",,", '="x"'], []),
        # The first of two equal names counts.
        (['Bearer realm="https://one",realm="https://two"'], [Challenge("bearer", {"realm": "https://one"})]),
        (['Basic realm="never ends'], [Challenge("basic", {"realm": ""})]),
    ],
)
def test_parse(headers: list[str], expected: list[Challenge]) -> None:
    assert parse(headers) == expected


def test_a_long_header_takes_no_long_time() -> None:
    assert parse(['Bearer realm="' + "\\" * 30_000])[0].scheme == "bearer"
