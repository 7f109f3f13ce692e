"""Checks of what plugins answer, made from the return annotations of the contracts."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import pkgutil
import sys
import types
import typing
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import kernel.contracts

DEEP = 1000
"""Elements of a list that are looked at."""


@cache
def checker(method: Callable[..., Any]) -> Callable[[Any], str]:
    """A function that says what is wrong with a result of `method`, or ""; says nothing where it cannot know."""
    wanted = _annotation(method)
    if wanted is Any:
        return lambda value: ""

    def check(value: Any) -> str:
        if _fits(value, wanted):
            return ""
        return f"answered {value!r:.80}, where {_name(wanted)} was due"

    return check


def _annotation(method: Callable[..., Any]) -> Any:
    text = inspect.get_annotations(method).get("return", Any)
    if not isinstance(text, str):
        return type(None) if text is None else text
    # Contracts import each other's types under TYPE_CHECKING alone, so their modules do not hold all the names.
    names = {**_contract_names(), **vars(sys.modules[method.__module__])}
    try:
        wanted = eval(text, names)
    except NameError:
        return Any
    return type(None) if wanted is None else wanted


@cache
def _contract_names() -> dict[str, Any]:
    names: dict[str, Any] = {"Path": Path, "Any": Any}
    for module in pkgutil.iter_modules(kernel.contracts.__path__):
        names.update(vars(importlib.import_module(f"kernel.contracts.{module.name}")))
    return names


def _fits(value: Any, wanted: Any) -> bool:
    origin = typing.get_origin(wanted)
    arguments = typing.get_args(wanted)
    if wanted is Any or isinstance(wanted, typing.TypeVar):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value[:DEEP])
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is not None:
        return _container_fits(value, origin, arguments)
    if not isinstance(wanted, type):
        return True
    if getattr(wanted, "_is_protocol", False):
        members = [name for base in wanted.__mro__ for name in vars(base) if not name.startswith("_")]
        return all(hasattr(value, name) for name in members if inspect.isfunction(getattr(wanted, name, None)))
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _container_fits(value: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(value, origin) or (isinstance(value, str | bytes) and origin is collections.abc.Sequence):
        return False
    if isinstance(value, collections.abc.Mapping):
        pairs = list(value.items())[:DEEP]
        return all(_fits(key, arguments[0]) and _fits(item, arguments[1]) for key, item in pairs)
    if isinstance(value, collections.abc.Sequence) and arguments:
        return all(_fits(item, arguments[0]) for item in value[:DEEP])
    return True


def _name(wanted: Any) -> str:
    if wanted is type(None):
        return "nothing"
    return wanted.__name__ if isinstance(wanted, type) and not typing.get_args(wanted) else str(wanted)
