"""Settings from flags and file."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from kernel.config import KERNEL, KernelSettings, combine, options
from kernel.daemon import daemon
from plugin_sdk import EngineError, InvalidParameter, PluginMeta, setting


class Net(BaseModel):
    bip: str = setting("", "bridge address", flag="--bip")
    mtu: int = setting(1500, "mtu", flag="--mtu")
    labels: list[str] = setting([], "labels", flag="--label", key="labels")
    opts: dict[str, str] = setting({}, "options", flag="--net-opt", key="net-opts")
    icc: bool = setting(True, "icc", flag="--icc")
    gone: str = setting("", "gone", flag="--gone", ignored="there is nothing to set")
    inner: int = setting(3, "only in the plugin's own table")


META = PluginMeta("net", settings=Net)
KNOWN = options({KERNEL: KernelSettings, "net": Net})
BY_FLAG = {option.flag: option for option in KNOWN}


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "daemon.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_flags_and_file_reach_their_plugin(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"mtu": 1400, "labels": ["a=1"], "net-opts": {"x": "y"}, "debug": True, "plugins": {"net": {"inner": 4}}},
    )
    config = combine({BY_FLAG["--bip"]: "10.0.0.1/8", BY_FLAG["--icc"]: "false"}, file, KNOWN, ["net"])
    assert config.kernel.debug is True
    settings = config.settings(META)
    assert (settings.bip, settings.mtu, settings.icc, settings.inner) == ("10.0.0.1/8", 1400, False, 4)
    assert (settings.labels, settings.opts) == (["a=1"], {"x": "y"})


def test_saying_it_twice_is_refused_in_dockerds_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="specified both as a flag and in the configuration file: mtu"):
        combine({BY_FLAG["--mtu"]: "1"}, written(tmp_path, {"mtu": 2}), KNOWN, ["net"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "invalid JSON"),
        ([], "want an object"),
        ({"mtuu": 1}, "the following directives don't match any configuration option: mtuu"),
        ({"plugins": {"nobody": {}}}, "no such plugin: nobody"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        combine({}, written(tmp_path, content), KNOWN, ["net"])


def test_a_bad_value_names_flag_plugin_and_value(tmp_path: Path) -> None:
    config = combine({BY_FLAG["--mtu"]: "wide"}, None, KNOWN, ["net"])
    with pytest.raises(InvalidParameter, match=r"invalid value for --mtu \(net\): .*got 'wide'"):
        config.settings(META)


def test_an_ignored_option_warns_with_its_reason() -> None:
    assert combine({BY_FLAG["--gone"]: "x"}, None, KNOWN, ["net"]).warnings == [
        "--gone is accepted and ignored: there is nothing to set"
    ]


def test_two_plugins_may_not_claim_one_flag() -> None:
    with pytest.raises(EngineError, match="'net' and 'other' both claim the option --"):
        options({"net": Net, "other": Net})


def test_the_command_line_is_dockerds(tmp_path: Path) -> None:
    runner = CliRunner()
    fine = [
        "--validate",
        "--debug=false",
        "-D",
        "--data-root",
        str(tmp_path),
        "--config-file",
        str(written(tmp_path, {})),
    ]
    assert runner.invoke(daemon, fine).output == "configuration OK\n"
    bad = runner.invoke(daemon, ["--validate", "--config-file", str(tmp_path / "none.json")])
    assert bad.exit_code == 1
    assert "unable to configure the Docker daemon with file" in bad.output
