"""`--change`: what each instruction does to a configuration, and dockerd's refusals."""

from typing import Any

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.changes import apply_changes, expand, instructions, words
from plugin_sdk.containers import ContainerConfig, HealthConfig


def changed(*changes: str, **start: Any) -> dict[str, Any]:
    before = ContainerConfig(**start)
    after = apply_changes(before, changes).model_dump()
    return {name: value for name, value in after.items() if value != before.model_dump()[name]}


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        (['CMD ["sh", "-x"]'], {"Cmd": ["sh", "-x"]}),
        (["cmd echo $HOME  x"], {"Cmd": ["/bin/sh", "-c", "echo $HOME  x"]}),
        (["ENTRYPOINT []"], {"Entrypoint": []}),
        (["ENTRYPOINT a b"], {"Entrypoint": ["/bin/sh", "-c", "a b"]}),
        (['ENV A="x y" B=2 C=a\\ b'], {"Env": ["A=x y", "B=2", "C=a b"]}),
        (["ENV A some  words"], {"Env": ["A=some  words"]}),
        (["ENV A=1", "ENV B=${A}2 C='$A' D=\"$A\""], {"Env": ["A=1", "B=12", "C=$A", "D=1"]}),
        (["EXPOSE 80 53/udp 8000-8002/TCP"], {"ExposedPorts": {
            port: {} for port in ("80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")}}),
        (['LABEL a=b "c d"="e f" g='], {"Labels": {"a": "b", "c d": "e f", "g": ""}}),
        (["USER me:us"], {"User": "me:us"}),
        (["VOLUME /a /b"], {"Volumes": {"/a": {}, "/b": {}}}),
        (['VOLUME ["/a b"]'], {"Volumes": {"/a b": {}}}),
        (["WORKDIR /a", "WORKDIR b/../c"], {"WorkingDir": "/a/c"}),
        (["STOPSIGNAL SIGQUIT"], {"StopSignal": "SIGQUIT"}),
        (["STOPSIGNAL RTMIN+3"], {"StopSignal": "RTMIN+3"}),
        (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
        (["ENV A=\\\n1\n# no\n\nUSER x"], {"Env": ["A=1"], "User": "x"}),
    ],
)  # fmt: skip
def test_instructions(changes: list[str], result: dict[str, Any]) -> None:
    assert changed(*changes) == result


def test_entrypoint_drops_an_inherited_command_but_not_one_of_the_same_changes() -> None:
    assert changed('ENTRYPOINT ["e"]', Cmd=["c"]) == {"Entrypoint": ["e"], "Cmd": None}
    assert changed('CMD ["n"]', 'ENTRYPOINT ["e"]', Cmd=["c"]) == {"Entrypoint": ["e"], "Cmd": ["n"]}


def test_values_replace_and_merge() -> None:
    assert changed("ENV A=2", Env=["A=1", "B=1"]) == {"Env": ["A=2", "B=1"]}
    assert changed("LABEL b=2", Labels={"a": "1"}) == {"Labels": {"a": "1", "b": "2"}}


def test_healthcheck() -> None:
    config = apply_changes(
        ContainerConfig(), ["HEALTHCHECK --interval=5s --timeout=1m --retries=3 --start-period=1.5s CMD curl -f x"]
    )
    assert config.Healthcheck == HealthConfig(
        Test=["CMD-SHELL", "curl -f x"], Interval=5 * 10**9, Timeout=60 * 10**9, StartPeriod=1500 * 10**6, Retries=3
    )
    exec_form = apply_changes(ContainerConfig(), ['HEALTHCHECK CMD ["a", "b"]'])
    assert exec_form.Healthcheck == HealthConfig(Test=["CMD", "a", "b"])
    assert apply_changes(exec_form, ["HEALTHCHECK none"]).Healthcheck == HealthConfig(Test=["NONE"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("FOO x", "FOO is not a valid change command"),
        ("COPY a b", "COPY is not a valid change command"),
        ("EXPOSE abc", "Invalid containerPort: abc"),
        ("EXPOSE 70000", "Invalid containerPort: 70000"),
        ("EXPOSE 80/foo", "Invalid proto: foo"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV x", "ENV must have two arguments"),
        ("ENV =x", "ENV names can not be blank"),
        ("ENV a=b c", 'Syntax error - can\'t find = in "c". Must be of the form: name=value'),
        ("LABEL a", "LABEL must have two arguments"),
        ("STOPSIGNAL XX", "invalid signal: XX"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK FOO", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=1 CMD x", 'time: missing unit in duration "1"'),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --what=1 CMD x", "unknown flag: what"),
    ],
)
def test_refusals(change: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        apply_changes(ContainerConfig(), [change])
    assert str(refused.value) == message


def test_words_keep_quotes() -> None:
    assert words("a 'b c'  \"d e\"\\ f g") == ["a", "'b c'", '"d e"\\ f', "g"]
    assert instructions("a\\\nb c") == [("AB", "c")]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A-$B", "1-"),
        ("${A}x", "1x"),
        ("${B:-d}", "d"),
        ("${E:-d}${E-d}", "d"),
        ("${A:+yes}${B:+no}", "yes"),
        ("${B:-${A}!}", "1!"),
        ("'$A'\"$A\"\\$A", "$A1$A"),
        ('"a\\nb"', "a\\nb"),
        ("$", "$"),
    ],
)
def test_expand(text: str, result: str) -> None:
    assert expand(text, {"A": "1", "E": ""}) == result


@pytest.mark.parametrize("text", ["'a", '"a', "${A", "${A:?x}", "${}"])
def test_expand_refuses(text: str) -> None:
    with pytest.raises(InvalidParameter):
        expand(text, {})
