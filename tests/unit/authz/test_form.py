"""What authorization plugins read is what the routes get."""

from __future__ import annotations

import json
import random
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from starlette.datastructures import QueryParams

from plugin_sdk import InvalidParameter
from plugin_sdk.api import RequestView
from plugins.api_server.app import split_version
from plugins.api_server.head import BadHead, parse
from plugins.api_server.leave import Headers
from plugins.authz import form


def view(target: str, method: str = "GET", **headers: str) -> RequestView:
    """As the API server makes it."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = parse(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode("latin-1"))
    version, path = split_version(head.path)
    query = head.query.decode("latin-1")
    raw = head.raw_path.decode("latin-1") + (f"?{query}" if query else "")
    return RequestView(head.method, path, query, Headers(head.headers), version, target=raw)


@pytest.mark.parametrize(
    "target",
    [
        "/_ping",
        "/v1.41/containers/create?name=web-1",
        "/v1.50/containers/json?all=1&filters=%7B%22status%22%3A%7B%22running%22%3Atrue%7D%7D",
        "/images/localhost:5000/me/app:1.0/json",
        "/images/me/app@sha256:00ff/json",
        "/v1.41/events?since=&until=1",
        "/info?all",
    ],
)
def test_an_ordinary_address_is_shown_as_sent(target: str) -> None:
    assert form.address(view(target)) == target


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v1.41/containers%2Fjson", "/v1.41/containers/json"),
        ("/%76%31.41/%63ontainers/create", "/v1.41/containers/create"),
        ("/containers/%77eb", "/containers/web"),
        ("/containers/x?force=1;x", "/containers/x?force=1%3Bx"),
        ("/containers/x?%66orce=%31", "/containers/x?force=1"),
        ("/containers/x?force=%zz", "/containers/x?force=%25zz"),
        ("/containers/x?a=b%20c", "/containers/x?a=b+c"),
        ("http://host/v1.41/containers/json?all=1", "/v1.41/containers/json?all=1"),
        ("/containers/json?&&all=1&", "/containers/json?all=1"),
    ],
)
def test_another_spelling_is_shown_as_the_route_gets_it(target: str, shown: str) -> None:
    assert form.address(view(target)) == shown


def test_a_parameter_that_comes_twice_is_refused_where_one_counts() -> None:
    for target in ("/containers/x?force=0&force=1", "/containers/x?force=0&%66orce=1", "/build?q=1&q=1"):
        with pytest.raises(InvalidParameter, match="more than once"):
            form.address(view(target))
    assert form.address(view("/v1.41/build?t=a&t=b")) == "/v1.41/build?t=a&t=b"
    assert form.address(view("/images/get?names=a&names=b")) == "/images/get?names=a&names=b"


def random_target(pick: random.Random) -> str:
    """An address as nobody sane would write it."""
    characters = "abz019/._-~:@!$'()*+,;=%&? "
    pieces = [
        pick.choice(
            ["%2f", "%2F", "%3f", "%26", "%3D", "%25", "%e9", "%C3%A9", "%zz", "%", "\xe9", "/v1.41/", "//", ".."]
        )
        if pick.random() < 0.3
        else pick.choice(characters)
        for _ in range(pick.randrange(1, 30))
    ]
    return "/" + "".join(pieces).replace(" ", "%20")


@pytest.mark.parametrize("seed", range(20))
def test_any_address_means_to_a_plugin_what_it_means_to_the_route(seed: int) -> None:
    pick = random.Random(seed)
    compared = 0
    for _ in range(300):
        try:
            request = view(random_target(pick))
            shown = form.address(request)
        except (BadHead, InvalidParameter):
            continue
        compared += 1
        assert shown.isascii()
        path, _, query = shown.partition("?")
        assert split_version(unquote(path))[1] == request.path
        assert "?" not in path and "#" not in shown and ";" not in query
        assert parse_qsl(query, keep_blank_values=True) == QueryParams(request.query).multi_items()
        assert urlsplit(f"http://x{shown}").path == path
    assert compared > 50


def test_headers() -> None:
    request = view(
        "/", "POST", **{"x_registry_auth": "secret", "X-REGISTRY-CONFIG": "secret", "Authorization": "secret"},
        Content_Type="application/json", content_length="0", X_A="1", x_a="2",
    )  # fmt: skip
    assert form.flat(request.headers) == {"Content-Type": "application/json", "Content-Length": "0", "X-A": "1"}


@pytest.mark.parametrize(
    ("method", "target", "kind", "shown"),
    [
        ("POST", "/containers/create", "application/json", True),
        ("POST", "/containers/create", "Application/JSON ; charset=utf-8", True),
        ("POST", "/containers/create", "text/plain", True),
        ("POST", "/commit", "application/x-tar", True),
        ("POST", "/v1.41/auth", "application/json", False),
        ("POST", "/auth/more", "application/json", True),
        ("POST", "/build", "application/x-tar", False),
        ("POST", "/build", "application/json", True),
        ("POST", "/v1.41/images/load", "application/x-tar", False),
        ("PUT", "/containers/a/archive", "application/x-tar", False),
        ("POST", "/containers/a/archive", "application/x-tar", True),
        ("PUT", "/containers/a/b/archive", "application/x-tar", True),
        ("POST", "/plugins/create", "application/x-tar", False),
        ("POST", "/plugins/x/set", "text/plain", True),
    ],
)
def test_which_bodies_are_shown(method: str, target: str, kind: str, shown: bool) -> None:
    assert form.shows_body(view(target, method, content_type=kind)) is shown


def test_a_body_without_a_type_is_shown() -> None:
    assert form.shows_body(view("/containers/create", "POST"))


@pytest.mark.parametrize(
    "body",
    [
        '{"HostConfig":{},"HostConfig":{"Privileged":true}}',
        '{"HostConfig":{},"hostconfig":{"Privileged":true}}',
        '[{"a":[{"b":1,"B":2}]}]',
        '{"a":1,"\\u0041":2}',
        '{"a":' * 100_000,
    ],
)
def test_json_that_two_decoders_read_in_two_ways_is_refused(body: str) -> None:
    with pytest.raises(InvalidParameter):
        form.check_json(body.encode())


@pytest.mark.parametrize("body", [b"", b"{}", b"no json", b'{"a":1,"b":[{"a":1},{"a":2}]}', b"\xff\xfe{", b"null"])
def test_other_bodies_pass(body: bytes) -> None:
    form.check_json(body)


@pytest.mark.parametrize("seed", range(10))
def test_json_without_equal_keys_passes_and_with_them_does_not(seed: int) -> None:
    pick = random.Random(seed)

    def make(depth: int) -> object:
        kind = pick.randrange(4) if depth else 3
        if kind == 0:
            return [make(depth - 1) for _ in range(pick.randrange(4))]
        if kind in (1, 2):
            return {f"k{number}": make(depth - 1) for number in range(pick.randrange(4))}
        return pick.choice([1, "x", None, True])

    for _ in range(50):
        text = json.dumps({"top": make(4), "last": 1})
        form.check_json(text.encode())
        with pytest.raises(InvalidParameter):
            form.check_json((text[:-1] + ', "LAST": 2}').encode())
