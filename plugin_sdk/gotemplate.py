"""Go's text/template, as far as people use it in one-line settings such as the `tag` of log drivers.

    Template("tag", "{{.Name}}/{{.ID | upper}}").render({"Name": "web", "ID": "abc"})

Understood: fields, map keys, methods with arguments, pipelines, parentheses, variables, `if`/`else if`/`else`, `with`,
`range`, comments, trim markers, Go's own functions but for `call`, and those that Docker adds (`json`, `split`, `join`,
`title`, `lower`, `upper`, `pad`, `truncate`). Not `define`, `template`, `block`, `break` and `continue`.
Sources: Go's text/template documentation; moby, daemon/logger/templates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from kernel.errors import InvalidParameter

from ._gofunctions import FUNCTIONS, shown, truth

DEPTH = 40
"""Parentheses and blocks within each other."""
LENGTH = 16 << 10
"""Characters of a template."""

_ACTION = re.compile(r"\{\{(-(?=\s))?((?:\"(?:[^\"\\\n]|\\.)*\"|`[^`]*`|(?!\}\}).)*?)((?<=\s)-)?\}\}", re.DOTALL)
_COMMENT = re.compile(r"\s*/\*.*\*/\s*\Z", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
  | (?P<char>'(?:[^'\\\n]|\\.)+')
  | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?))
  | (?P<assign>:?=)
  | (?P<comma>,)
  | (?P<pipe>\|)
  | (?P<open>\()
  | (?P<close>\)(?:\.[^\W\d]\w*)*)
  | (?P<variable>\$\w*(?:\.[^\W\d]\w*)*)
  | (?P<field>(?:\.[^\W\d]\w*)+)
  | (?P<dot>\.)
  | (?P<word>[^\W\d]\w*)""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_CONSTANTS = {"true": True, "false": False, "nil": None}

_Variables = dict[str, Any]
_Value = Callable[[Any, _Variables], Any]
"""A compiled expression: gets the dot and the variables."""
_Piece = Callable[[Any, _Variables, list[str]], None]
"""A compiled piece of the template: appends to the list."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


class _Record(dict[str, Any]):
    """The data given to `render`: a name that is not in it is an error, as with a struct of Go."""


class Template:
    """A parsed template.

    Args:
        name: shown in errors.
        fields: names that the data will have; None: not checked before `render`.

    Raises:
        InvalidParameter: it is no template, or asks for a field that will not be there.
    """

    def __init__(self, name: str, text: str, fields: Collection[str] | None = None) -> None:
        self._name = name
        self._pieces = _Parser(name, text, fields).parse()

    def render(self, data: Mapping[str, Any]) -> str:
        """The text for these data.

        Args:
            data: fields by name; a callable is a method.

        Raises:
            InvalidParameter: an action does not fit the data, for example `index` beyond a list's end.
        """
        out: list[str] = []
        root = _Record(data)
        try:
            _run(self._pieces, root, {"$": root}, out)
        except (InvalidParameter, TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            raise InvalidParameter(f"template: {self._name}: {error}") from None
        return "".join(out)


def _run(pieces: Sequence[_Piece], dot: Any, variables: _Variables, out: list[str]) -> None:
    for piece in pieces:
        piece(dot, variables, out)


class _Parser:
    """Compiles a template to closures."""

    def __init__(self, name: str, text: str, fields: Collection[str] | None) -> None:
        self._name = name
        self._fields = fields
        if len(text) > LENGTH:
            self._fail(f"longer than {LENGTH} characters")
        self._parts = iter(self._split(text))
        self._tokens: list[_Token] = []
        self._depth = 0
        # Within `with` and `range` the dot is another one, whose fields nobody knows before.
        self._moved = 0

    def parse(self) -> list[_Piece]:
        """The pieces. Raises InvalidParameter."""
        pieces, ended = self._block({"$"})
        if ended:
            self._fail(f"unexpected {{{{{ended}}}}}")
        return pieces

    def _fail(self, what: str) -> NoReturn:
        raise InvalidParameter(f"template: {self._name}: {what}")

    # Text and tokens.

    def _split(self, text: str) -> list[tuple[bool, str]]:
        """Whether it is an action, and its text."""
        parts: list[tuple[bool, str]] = []
        done, trim = 0, False
        for found in _ACTION.finditer(text):
            plain = text[done : found.start()]
            plain = plain.lstrip() if trim else plain
            self._plain(parts, plain.rstrip() if found[1] else plain)
            if not _COMMENT.match(found[2]):
                parts.append((True, found[2]))
            done, trim = found.end(), bool(found[3])
        self._plain(parts, text[done:].lstrip() if trim else text[done:])
        return parts

    def _plain(self, parts: list[tuple[bool, str]], text: str) -> None:
        if "{{" in text:
            self._fail("unclosed action")
        if text:
            parts.append((False, text))

    def _scan(self, text: str) -> list[_Token]:
        tokens: list[_Token] = []
        at = _SPACE.match(text).end()  # type: ignore[union-attr]
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                self._fail(f"unexpected {text[at]!r} in {text.strip()!r}")
            tokens.append(_Token(str(found.lastgroup), found[0]))
            at = _SPACE.match(text, found.end()).end()  # type: ignore[union-attr]
        return tokens

    def _next(self) -> str:
        """The kind of the next token; "" at the action's end."""
        return self._tokens[0].kind if self._tokens else ""

    def _word(self) -> str:
        """The next token if it is a word, else ""."""
        return self._tokens[0].text if self._next() == "word" else ""

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            self._fail("too many blocks or parentheses within each other")

    # Blocks.

    def _block(self, known: set[str]) -> tuple[list[_Piece], str]:
        """Pieces up to `end` or `else`, and which of them it was; "" at the template's end."""
        self._deeper()
        pieces: list[_Piece] = []
        ended = ""
        for is_action, text in self._parts:
            if not is_action:
                pieces.append(_plain(text))
                continue
            self._tokens = self._scan(text)
            word = self._word()
            if word in ("end", "else"):
                self._tokens.pop(0)
                ended = word
                break
            if word in ("if", "with", "range"):
                self._tokens.pop(0)
                pieces.append(self._control(word, known))
            elif word in ("define", "template", "block", "break", "continue"):
                self._fail(f"{{{{{word}}}}} is not supported")
            else:
                pieces.append(_print(*self._assignment(known)))
        self._depth -= 1
        return pieces, ended

    def _control(self, word: str, known: set[str]) -> _Piece:
        inner = set(known)
        names, value = self._assignment(inner)
        moved = word != "if"
        self._moved += moved
        body, ended = self._block(inner)
        self._moved -= moved
        otherwise: list[_Piece] = []
        if ended == "else":
            if self._word() in ("if", "with"):
                return _control(word, names, value, body, [self._control(self._tokens.pop(0).text, inner)])
            otherwise, ended = self._block(inner)
        if ended != "end":
            self._fail(f"unexpected {ended or 'EOF'}: {{{{end}}}} is missing")
        return _control(word, names, value, body, otherwise)

    def _assignment(self, known: set[str]) -> tuple[list[str], _Value]:
        """`$x := pipeline`, `$i, $x := pipeline`, or a pipeline alone and no names."""
        names: list[str] = []
        kinds = [token.kind for token in self._tokens[:4]]
        if kinds[:2] == ["variable", "assign"]:
            names = [self._tokens[0].text]
        elif kinds == ["variable", "comma", "variable", "assign"]:
            names = [self._tokens[0].text, self._tokens[2].text]
        del self._tokens[: 2 * len(names)]
        value = self._pipeline(known)
        if self._tokens:
            self._fail(f"unexpected {self._tokens[0].text!r} in command")
        known.update(names)
        return names, value

    # Expressions.

    def _pipeline(self, known: set[str]) -> _Value:
        self._deeper()
        value = self._command(known, None)
        while self._next() == "pipe":
            self._tokens.pop(0)
            value = self._command(known, value)
        self._depth -= 1
        return value

    def _command(self, known: set[str], piped: _Value | None) -> _Value:
        """Operands up to a pipe, a closing parenthesis or the end; a function or method takes the others."""
        if self._next() in ("", "pipe", "close"):
            self._fail("missing value for command")
        head, path, function = self._operand(known)
        arguments: list[_Value] = []
        while self._next() not in ("", "pipe", "close"):
            argument, steps, alone = self._operand(known)
            arguments.append(_called(alone, ()) if alone else _followed(argument, steps, ()))
        if piped is not None:
            arguments.append(piped)
        if function:
            return _called(function, arguments)
        if arguments and not path:
            self._fail("can't give argument to non-function")
        return _followed(head, path, arguments)

    def _operand(self, known: set[str]) -> tuple[_Value, list[str], str]:
        """A value and the fields that follow it, or the name of a function."""
        token = self._tokens.pop(0)
        first, *path = token.text.split(".") if token.kind in ("field", "variable") else [token.text]
        if token.kind == "field":
            if self._fields is not None and not self._moved and path[0] not in self._fields:
                self._fail(f"can't evaluate field {path[0]}: known are {', '.join(sorted(self._fields))}")
            return _dot, path, ""
        if token.kind == "dot":
            return _dot, [], ""
        if token.kind == "variable":
            if first not in known:
                self._fail(f"undefined variable {first!r}")
            return _variable(first), path, ""
        if token.kind == "open":
            value = self._pipeline(known)
            if self._next() != "close":
                self._fail("unclosed left paren")
            return value, self._tokens.pop(0).text.split(".")[1:], ""
        if token.kind == "word" and token.text not in _CONSTANTS:
            if token.text not in FUNCTIONS:
                self._fail(f'function "{token.text}" not defined')
            return _dot, [], token.text
        return _constant(self._literal(token)), [], ""

    def _literal(self, token: _Token) -> Any:
        if token.kind == "word":
            return _CONSTANTS[token.text]
        if token.kind == "number":
            try:
                return int(token.text, 0)
            except ValueError:
                return float(token.text)
        if token.text.startswith("`"):
            return token.text[1:-1]
        if token.kind not in ("string", "char"):
            self._fail(f"unexpected {token.text!r} in operand")
        text = _ESCAPE.sub(_unescaped, token.text[1:-1])
        return text if token.kind == "string" else ord(text[0])


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] in "xuU" and len(code) > 1:
        return chr(min(int(code[1:], 16), 0x10FFFF))
    return chr(int(code, 8)) if len(code) == 3 else _ESCAPES.get(code, code)


# What the parser compiles to.


def _plain(text: str) -> _Piece:
    return lambda dot, variables, out: out.append(text)


def _print(names: list[str], value: _Value) -> _Piece:
    if names:
        return lambda dot, variables, out: variables.__setitem__(names[-1], value(dot, variables))
    return lambda dot, variables, out: out.append(shown(value(dot, variables)))


def _control(word: str, names: list[str], value: _Value, body: list[_Piece], otherwise: list[_Piece]) -> _Piece:
    def branch(dot: Any, variables: _Variables, out: list[str]) -> None:
        found = value(dot, variables)
        # Blocks share the mapping, so that `$x = ...` within reaches the variable outside.
        for name in names if word != "range" else ():
            variables[name] = found
        if not truth(found):
            _run(otherwise, dot, variables, out)
        elif word == "range":
            pairs = sorted(found.items()) if isinstance(found, Mapping) else enumerate(found)
            for pair in pairs:
                variables.update(zip(names[::-1], pair[::-1], strict=False))
                _run(body, pair[1], variables, out)
        else:
            _run(body, found if word == "with" else dot, variables, out)

    return branch


def _dot(dot: Any, variables: _Variables) -> Any:
    return dot


def _variable(name: str) -> _Value:
    return lambda dot, variables: variables[name]


def _constant(value: Any) -> _Value:
    return lambda dot, variables: value


def _called(name: str, arguments: Sequence[_Value]) -> _Value:
    function = FUNCTIONS[name]
    return lambda dot, variables: function(*(argument(dot, variables) for argument in arguments))


def _followed(head: _Value, path: list[str], arguments: Sequence[_Value]) -> _Value:
    if not path:
        return head

    def follow(dot: Any, variables: _Variables) -> Any:
        found = head(dot, variables)
        for name in path[:-1]:
            found = _field(found, name, ())
        return _field(found, path[-1], [argument(dot, variables) for argument in arguments])

    return follow


def _field(value: Any, name: str, arguments: Sequence[Any]) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidParameter(f"can't evaluate field {name} in type {type(value).__name__}")
    if name not in value:
        if isinstance(value, _Record):
            raise InvalidParameter(f"can't evaluate field {name}")
        return ""
    found = value[name]
    if callable(found):
        return found(*arguments)
    if arguments:
        raise InvalidParameter(f"{name} has arguments but cannot be invoked as function")
    return found
