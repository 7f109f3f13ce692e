"""Go's templates, against what Go prints."""

from __future__ import annotations

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.gotemplate import Template

DATA = {
    "Name": "web",
    "ID": "abc",
    "Empty": "",
    "Image": "reg/a:1",
    "Labels": {"com.x": "1", "b": "2"},
    "Args": ["a", "b"],
    "Extra": lambda rename=None: {"SVC": "s"},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain } text", "plain } text"),
        ("{{.Name}}/{{ .ID }}", "web/abc"),
        ('{{.Name | upper | printf "%5s|%-4s|" .ID }}', "  abc|WEB |"),
        ('{{index .Labels "com.x"}}{{index .Labels "none"}}{{index .Args 1}}', "1b"),
        ("{{(.Extra nil).SVC}}{{.Extra.SVC}}", "ss"),
        ('{{with split .Image ":"}}{{join . "_"}}{{end}}', "reg/a_1"),
        ("{{with .Empty}}x{{else}}{{.Name}}{{end}}", "web"),
        ("{{range $i, $a := .Args}}{{$i}}={{$a}},{{end}}", "0=a,1=b,"),
        ("{{range .Labels}}{{.}}{{end}}{{range .Empty}}x{{else}}none{{end}}", "21none"),
        ('{{if eq .Name "x" "y"}}a{{else if and .ID (not .Empty)}}b{{else}}c{{end}}', "b"),
        ("{{if .Empty}}a{{else}}{{if .ID}}c{{end}}{{end}}d", "cd"),
        ("x {{- .Name -}}  y", "xweby"),
        ('{{"}}"}}{{`"\\`}}{{"\\x41\\n"}}', '}}"\\A\n'),
        ("{{$x := .Name}}{{$x}}{{if .ID}}{{$x = .ID}}{{end}}{{$x}}{{$.Name}}", "webabcweb"),
        ("{{.Labels}} {{.Args}} {{true}} {{3}}", "map[b:2 com.x:1] [a b] true 3"),
        ("{{slice .ID 0 2}} {{slice .ID 1}} {{len .ID}} {{truncate .Image 3}}", "ab bc 3 reg"),
        ("{{/* a comment */}}{{json .Labels}}", '{"b":"2","com.x":"1"}'),
        ('{{pad .Name 1 2}}|{{pad .Empty 1 2}}|{{title "some words"}}', " web  ||Some Words"),
        ('{{printf "%q %d %x %v %t %%" .Name 7 .ID .Args true}}', '"web" 7 616263 [a b] true %'),
        ('{{printf "%d %s" .Name}}', "%!d(str=web) %!s(MISSING)"),
        ('{{print "a" 1 2 "b"}}{{urlquery "a b&"}}{{html "<"}}', "a1 2ba+b%26&lt;"),
    ],
)
def test_renders(template: str, text: str) -> None:
    assert Template("tag", template, DATA).render(DATA) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Foo}}", "template: tag: can't evaluate field Foo: known are Args, "),
        ("{{with .Foo}}{{end}}", "can't evaluate field Foo"),
        ("{{.Name", "unclosed action"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{if .Name}}", "{{end}} is missing"),
        ("{{if .Name}}a{{else}}b{{else}}c{{end}}", "{{end}} is missing"),
        ("{{nofunction .Name}}", 'function "nofunction" not defined'),
        ("{{}}", "missing value for command"),
        ("{{.Name |}}", "missing value for command"),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{.Name)}}", "unexpected ')' in command"),
        ("{{1 2}}", "can't give argument to non-function"),
        ("{{$x}}", "undefined variable '$x'"),
        ("{{#}}", "unexpected '#'"),
        ('{{template "x"}}', "{{template}} is not supported"),
        ("{{" + "(" * 60 + "}}", "too many blocks or parentheses"),
        ("{{if .ID}}" * 60, "too many blocks or parentheses"),
        ("x" * (20 << 10), "longer than"),
    ],
)
def test_refuses_when_it_is_made(template: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        Template("tag", template, DATA)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{.Name 1}}",
        "{{.Name.More}}",
        "{{index .Args 9}}",
        "{{index .Args -1}}",
        "{{lower 3}}",
        "{{slice .ID 2 1}}",
        "{{with .Name}}{{.Foo}}{{end}}",
        "{{range .Args}}{{$.Foo}}{{end}}",
        "{{range 3}}{{end}}",
        '{{printf "%99999999d" 1}}',
        "{{pad .Name 99999999 1}}",
        "{{eq}}",
        '{{lt 1 "a"}}',
    ],
)
def test_refuses_when_it_does_not_fit_the_data(template: str) -> None:
    made = Template("tag", template, [*DATA, "Foo"])
    with pytest.raises(InvalidParameter, match="template: tag: "):
        made.render(DATA)
