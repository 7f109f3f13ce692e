"""Shapes and filters of images on the wire."""

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import ContainerConfig
from plugin_sdk.images import Image
from plugins.images.listing import prunable, reference_pattern, summary
from plugins.images.records import chain_ids, config_document, image_config, image_of

ID = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("busybox", "busybox:latest", True),
        ("busybox:latest", "busybox:latest", True),
        ("busy*", "busybox:latest", True),
        ("busy*:la?est", "busybox:latest", True),
        ("*", "some/thing:1", False),
        ("*/*", "some/thing:1", True),
        ("b[a-u]sybox", "busybox:1", True),
        ("b[^u]sybox", "busybox:1", False),
        ("usybox", "busybox:1", False),
        ("b.sybox", "busybox:1", False),
    ],
)
def test_reference_patterns(pattern: str, name: str, fits: bool) -> None:
    assert reference_pattern(pattern)(name) is fits


def test_summary_follows_the_version() -> None:
    bare = Image(Id=ID, Raw="{}", Config=ContainerConfig(), Created="2026-01-02T03:04:05.6Z", Size=7)
    new, old = (summary(None, bare, version, -1, -1) for version in ((1, 51), (1, 42)))  # type: ignore[arg-type]
    assert (new["RepoTags"], new["RepoDigests"]) == ([], [])
    assert (old["RepoTags"], old["RepoDigests"]) == (["<none>:<none>"], ["<none>@<none>"])
    assert "VirtualSize" not in new and old["VirtualSize"] == 7
    assert new["Created"] == 1767323045 and new["Labels"] is None


def test_prune_filters() -> None:
    old = Image(Id=ID, Raw="{}", Created="2020-01-01T00:00:00Z", Config=ContainerConfig(Labels={"keep": "1"}))
    named = old.model_copy(update={"Tags": ["x:1"]})
    assert prunable({})(old) and not prunable({})(named)
    assert prunable({"dangling": ["false"]})(named)
    assert not prunable({"label!": ["keep"]})(old) and prunable({"label": ["keep=1"]})(old)
    assert prunable({"until": ["1h"]})(old) and not prunable({"until": ["2019-01-01"]})(old)
    with pytest.raises(InvalidParameter, match="invalid filter 'dangling=\\[x\\]'"):
        prunable({"dangling": ["x"]})


def test_configuration_documents() -> None:
    config = ContainerConfig(Cmd=["sh"], Env=["A=1"])
    document = config_document(config)
    assert document["Entrypoint"] is None and document["Volumes"] is None and "ExposedPorts" not in document
    assert document["Cmd"] == ["sh"] and document["Hostname"] == ""
    assert image_config(config) == {"Env": ["A=1"], "Cmd": ["sh"]}


def test_image_of() -> None:
    image = image_of(
        b'{"os":"linux","config":null,"rootfs":{"type":"layers","diff_ids":["sha256:1","sha256:2"]},"x":1}'
    )
    assert image.DiffIDs == ["sha256:1", "sha256:2"]
    assert image.ChainID == chain_ids(["sha256:1", "sha256:2"])[1]
    for wrong in (b"[]", b"{", b'{"rootfs":{"type":"vhd"}}', b'{"config":{"Env":3}}', b'"x"'):
        with pytest.raises(InvalidParameter, match="invalid image configuration"):
            image_of(wrong)
