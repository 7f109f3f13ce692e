"""Image references: normal forms, familiar forms, and what is refused."""

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.reference import Reference, familiar, is_image_id, may_be_id_prefix, parse

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox:x", "docker.io/library/busybox:x", "busybox:x"),
        ("some/thing", "docker.io/some/thing", "some/thing"),
        ("docker.io/library/some/thing", "docker.io/library/some/thing", "library/some/thing"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("Host/a", "Host/a", "Host/a"),
        ("a__b/c--d/e.f:T_1.x-", "docker.io/a__b/c--d/e.f:T_1.x-", "a__b/c--d/e.f:T_1.x-"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"r.io/x:y@{DIGEST}", f"r.io/x:y@{DIGEST}", f"r.io/x:y@{DIGEST}"),
    ],
)
def test_forms(text: str, full: str, short: str) -> None:
    reference = parse(text)
    assert (str(reference), reference.familiar) == (full, short)
    assert parse(str(reference)) == reference
    assert parse(reference.familiar) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a@sha256:12", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("r.io/Foo:x", "invalid reference format: repository name (Foo) must be lowercase"),
        ("a" * 256, "repository name must not be more than 255 characters"),
        ("f" * 64, f"invalid repository name ({'f' * 64}), cannot specify 64-byte hexadecimal strings"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse(text)
    assert str(refused.value) == message


def test_tags() -> None:
    assert familiar("busybox") == "busybox:latest"
    assert familiar(f"busybox@{DIGEST}") == f"busybox@{DIGEST}"
    assert parse("a:1").with_tag("2") == Reference("docker.io", "library/a", "2")
    assert parse("a:1").with_digest(DIGEST).familiar == f"a@{DIGEST}"
    with pytest.raises(InvalidParameter, match="invalid tag format"):
        parse("a").with_tag("b@d")


def test_ids() -> None:
    assert is_image_id(DIGEST) and is_image_id("f" * 64)
    assert not is_image_id("f" * 63)
    assert may_be_id_prefix("0a") and may_be_id_prefix("sha256:0a") and not may_be_id_prefix("xyz")
