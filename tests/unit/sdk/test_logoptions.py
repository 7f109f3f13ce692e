"""What log drivers have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import ContainerRecord
from plugin_sdk.logoptions import (
    boolean_option,
    check_attributes,
    check_common,
    check_names,
    count_option,
    extra_attributes,
    log_tag,
    size_option,
)
from plugin_sdk.logs import LogInfo


def info(**options: str) -> LogInfo:
    record = ContainerRecord(
        Id="ab" * 32,
        Name="web",
        Created="2026-01-01T00:00:00Z",
        ImageID="sha256:" + "cd" * 32,
        ImageRef="reg/app:1",
        Driver="overlay2",
        Runtime="crun",
        Path="sh",
        Args=["-c", "true"],
        Config={  # type: ignore[arg-type]
            "Labels": {"a": "1", "com.x": "2"},
            "Env": ["E=5", "COM_Y=6"],
        },
        HostConfig={},  # type: ignore[arg-type]
    )
    return LogInfo(record, {name.replace("_", "-"): value for name, value in options.items()}, Path("/nowhere"))


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        ("", "abababababab"),
        ("fixed", "fixed"),
        ("{{.FullID}}", "ab" * 32),
        ("{{.ImageName}}|{{.ImageID}}|{{.ImageFullID}}", "reg/app:1|cdcdcdcdcdcd|sha256:" + "cd" * 32),
        ("{{.DaemonName}}/{{.Name}}{{.ContainerName}}", "docker/web/web"),
        ("{{.Command}} {{index .ContainerArgs 0}}", "sh -c true -c"),
        ('{{index .ContainerLabels "com.x"}}{{(.ExtraAttributes nil).a}}', "21"),
    ],
)
def test_tag(template: str, tag: str) -> None:
    given = info(tag=template, labels="a")
    check_attributes(given.options)
    assert log_tag(given) == tag


def test_the_drivers_own_default_tag() -> None:
    assert log_tag(info(), "{{.Name}}") == "web"
    assert log_tag(info(), "") == ""


def test_attributes() -> None:
    assert extra_attributes(info()) == {}
    assert extra_attributes(info(labels="a,none,", env="E")) == {"a": "1", "E": "5"}
    assert extra_attributes(info(labels_regex="^com", env_regex="^COM")) == {"com.x": "2", "COM_Y": "6"}
    assert extra_attributes(info(labels="a"), lambda name: f"_{name}") == {"_a": "1"}


@pytest.mark.parametrize(
    ("check", "options", "message"),
    [
        (check_attributes, {"labels-regex": "("}, "error parsing regexp of labels-regex: "),
        (check_attributes, {"tag": "{{.Foo}}"}, "template: log-tag: can't evaluate field Foo"),
        (check_common, {"mode": "x"}, "logger: logging mode not supported: x"),
        (check_common, {"max-buffer-size": "1m"}, "logger: max-buffer-size option is only supported with "),
        (check_common, {"cache-disabled": "maybe"}, "invalid value for option cache-disabled: "),
        (lambda options: size_option(options, "s"), {"s": "0"}, "s must be a positive number"),
        (lambda options: count_option(options, "c"), {"c": "0"}, "c cannot be less than 1"),
        (
            lambda options: count_option(options, "c"),
            {"c": "x"},
            'invalid value for c: x: strconv.Atoi: parsing "x": invalid syntax',
        ),
        (lambda options: check_names(options, ("a",), "no '{}' here"), {"mode": "", "b": ""}, "no 'b' here"),
    ],
)
def test_refusals(check: Callable[[Mapping[str, str]], object], options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        check(options)
    assert str(refused.value).startswith(message)


def test_values() -> None:
    assert (size_option({"s": "2k"}, "s"), size_option({"s": "-1"}, "s"), size_option({}, "s")) == (2048, 0, None)
    assert (count_option({"c": "3"}, "c"), count_option({}, "c")) == (3, None)
    assert (boolean_option({"b": "T"}, "b"), boolean_option({}, "b", True)) == (True, True)
