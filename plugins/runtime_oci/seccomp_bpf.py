"""Seccomp filters compiled once by the engine instead of by crun at each start of a container.

crun takes a finished filter in an annotation (crun(1), `run.oci.seccomp_bpf_data`), and compiling Docker's default profile
took 14 of the 22 ms of a creation here. The compiler is the same, libseccomp, on which crun depends.

As runc does, system calls that are newer than all in the profile get ENOSYS rather than EPERM: C libraries fall back on an
older call after the first, and give up after the second. Source: seccomp(2), libseccomp's manual, runc's documentation.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import logging
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import orjson

log = logging.getLogger("engine.runtime_oci")

ANNOTATION = "run.oci.seccomp_bpf_data"

KEPT = 32
"""Compiled filters remembered: one for each profile and set of capabilities in use."""
MAX_INSTRUCTIONS = 4096

_ACTIONS = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
}
_WITH_ERRNO = frozenset({"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"})
_OPERATORS = {
    f"SCMP_CMP_{name}": number for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)
}
_OPTIMIZE = 8
_BINARY_TREE = 2
_UNKNOWN = -1
_X32 = 0x4000003E
_X32_BIT = 0x40000000

# Classic BPF: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, |BPF_JGT, |BPF_JGE, BPF_RET|BPF_K.
_LOAD, _JEQ, _JGT, _JGE, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x06
_INSTRUCTION = struct.Struct("=HBBI")
_NUMBER_OFFSET, _ARCH_OFFSET = 0, 4


class _Argument(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class Unsupported(Exception):
    """This profile, or this host, leaves the filter to the runtime."""


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise Unsupported(str(error)) from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Argument),
    )
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


class FilterCache:
    """Compiled filters by their profile. Callable from any thread."""

    def __init__(self) -> None:
        self._filters: OrderedDict[bytes, str | None] = OrderedDict()
        self._lock = threading.Lock()

    def apply(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The spec for crun: with the compiled filter in place of the profile, if that is possible. Blocking at first."""
        profile = spec["linux"].get("seccomp")
        if not profile or ANNOTATION in spec.get("annotations", {}):
            return spec
        encoded = self.encoded(profile)
        if encoded is None:
            return spec
        linux = {key: value for key, value in spec["linux"].items() if key != "seccomp"}
        return {**spec, "linux": linux, "annotations": {**spec.get("annotations", {}), ANNOTATION: encoded}}

    def encoded(self, profile: Mapping[str, Any]) -> str | None:
        """The filter in base64; None where the runtime has to compile it."""
        key = orjson.dumps(profile)
        with self._lock:
            if key in self._filters:
                self._filters.move_to_end(key)
                return self._filters[key]
            try:
                found = base64.b64encode(compile_filter(profile)).decode()
            except Unsupported as error:
                log.debug("a seccomp profile is left to the runtime: %s", error)
                found = None
            self._filters[key] = found
            while len(self._filters) > KEPT:
                self._filters.popitem(last=False)
            return found


def compile_filter(profile: Mapping[str, Any]) -> bytes:
    """The BPF program of an OCI seccomp profile. Blocking, some milliseconds.

    Raises:
        Unsupported: it cannot be compiled here, or has what only the runtime can do (a listener, flags).
    """
    if profile.get("flags") or profile.get("listenerPath"):
        raise Unsupported("it has flags or a listener")
    library = _library()
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    if not context:
        raise Unsupported("libseccomp does not take the default action")
    try:
        architectures = [_architecture(library, name) for name in profile.get("architectures", ())]
        for token in architectures:
            _check(library.seccomp_arch_add(context, token), "architecture", allowed=(-errno.EEXIST,))
        for rule in profile.get("syscalls", ()):
            _add(library, context, default, rule)
        library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)
        program = _export(library, context)
    finally:
        library.seccomp_release(context)
    if profile["defaultAction"] == "SCMP_ACT_ERRNO":
        tokens = dict.fromkeys([library.seccomp_arch_native(), *architectures])
        program = _newer_calls(library, tuple(tokens), profile.get("syscalls", ())) + program
    if len(program) > MAX_INSTRUCTIONS * _INSTRUCTION.size:
        raise Unsupported("it is longer than the kernel takes")
    return program


def _action(name: str, number: int | None) -> int:
    if name not in _ACTIONS:
        raise Unsupported(f"action {name}")
    if name in _WITH_ERRNO:
        return _ACTIONS[name] | ((errno.EPERM if number is None else number) & 0xFFFF)
    return _ACTIONS[name]


def _architecture(library: ctypes.CDLL, name: str) -> int:
    token: int = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
    if not token:
        raise Unsupported(f"architecture {name}")
    return token


def _check(result: int, what: str, allowed: Sequence[int] = ()) -> None:
    if result < 0 and result not in allowed:
        raise Unsupported(f"{what}: {os.strerror(-result)}")


def _add(library: ctypes.CDLL, context: int, default: int, rule: Mapping[str, Any]) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    comparisons = [_comparison(argument) for argument in rule.get("args") or ()]
    # Several conditions on one argument are alternatives, on different ones they hold together: runc's and crun's reading.
    together = len({comparison.arg for comparison in comparisons}) == len(comparisons)
    groups = [comparisons] if together else [[comparison] for comparison in comparisons]
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN:
            continue
        for group in groups:
            values = (_Argument * len(group))(*group)
            _check(library.seccomp_rule_add_array(context, action, number, len(group), values), name)


def _comparison(argument: Mapping[str, Any]) -> _Argument:
    operator = _OPERATORS.get(argument.get("op", ""))
    if operator is None or not 0 <= argument.get("index", -1) < 6:
        raise Unsupported(f"condition {argument}")
    return _Argument(argument["index"], operator, argument.get("value", 0), argument.get("valueTwo", 0))


def _export(library: ctypes.CDLL, context: int) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _check(library.seccomp_export_bpf(context, descriptor), "export")
        file.seek(0)
        return file.read()


def _newer_calls(library: ctypes.CDLL, architectures: Sequence[int], rules: Sequence[Mapping[str, Any]]) -> bytes:
    """Instructions before the filter: ENOSYS for calls beyond the newest in the profile, and on to the filter for others."""
    names = {name.encode() for rule in rules for name in rule["names"]}
    newest = {
        token: max((library.seccomp_syscall_resolve_name_arch(token, name) for name in names), default=_UNKNOWN)
        for token in architectures
        if token != _X32  # to the kernel this is x86-64 with a bit set in the number, which the filter deals with
    }
    newest = {token: number for token, number in newest.items() if number > 0}
    refuse = _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS
    blocks: list[tuple[int, int, int, int]] = []
    for index, (token, number) in enumerate(newest.items()):
        after = 5 * (len(newest) - index - 1)  # instructions of the later blocks
        blocks += [
            (_JEQ, 0, 4, token),
            (_LOAD, 0, 0, _NUMBER_OFFSET),
            (_JGE, after + 2, 0, _X32_BIT),
            (_JGT, 0, after + 1, number),
            (_RETURN, 0, 0, refuse),
        ]
    if not blocks:
        return b""
    return b"".join(_INSTRUCTION.pack(*one) for one in [(_LOAD, 0, 0, _ARCH_OFFSET), *blocks])
