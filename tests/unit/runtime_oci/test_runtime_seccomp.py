"""Seccomp profiles: which rules apply, and what the compiled filter decides."""

from __future__ import annotations

import ctypes.util
import errno
import json
import platform
import struct
from typing import Any

import pytest

from plugin_sdk import InvalidParameter
from plugins.runtime_oci import capabilities, seccomp
from plugins.runtime_oci.seccomp_bpf import ANNOTATION, FilterCache, Unsupported, compile_filter

needs_libseccomp = pytest.mark.skipif(
    not ctypes.util.find_library("seccomp") or platform.machine() != "x86_64",
    reason="checks x86-64 system call numbers",
)

X86_64, I386 = 0xC000003E, 0x40000003
ALLOW, REFUSE = 0x7FFF0000, 0x00050000


def decide(program: bytes, arch: int, number: int, *args: int) -> int:
    """Run a classic BPF program on a `struct seccomp_data`, as the kernel does."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *(list(args) + [0] * 6)[:6])
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        match op:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x06:
                return k
            case 0x05:
                at += k
            case 0x54:
                accumulator &= k
            case 0x15:
                at += yes if accumulator == k else no
            case 0x25:
                at += yes if accumulator > k else no
            case 0x35:
                at += yes if accumulator >= k else no
            case _:
                raise AssertionError(f"unknown instruction {op:#x}")


@pytest.fixture(scope="module")
def default() -> bytes:
    return compile_filter(seccomp.builtin(capabilities.DEFAULT))


@needs_libseccomp
@pytest.mark.parametrize(
    ("number", "args", "result"),
    [
        (0, (), ALLOW),  # read
        (59, (), ALLOW),  # execve
        (101, (), ALLOW),  # ptrace
        (165, (), REFUSE | errno.EPERM),  # mount
        (272, (), REFUSE | errno.EPERM),  # unshare
        (425, (), REFUSE | errno.EPERM),  # io_uring_setup
        (161, (), ALLOW),  # chroot, by CAP_SYS_CHROOT
        (169, (), REFUSE | errno.EPERM),  # reboot
        (56, (0x01200011,), ALLOW),  # clone of a process
        (56, (0x10000000,), REFUSE | errno.EPERM),  # clone with CLONE_NEWUSER
        (435, (), REFUSE | errno.ENOSYS),  # clone3: libraries fall back on clone
        (41, (2,), ALLOW),  # socket(AF_INET)
        (41, (16,), ALLOW),  # socket(AF_NETLINK)
        (41, (38,), REFUSE | errno.EPERM),  # socket(AF_ALG)
        (41, (40,), REFUSE | errno.EPERM),  # socket(AF_VSOCK)
        (41, ((1 << 32) | 40,), REFUSE | errno.EPERM),  # the kernel looks at the low half
        (135, (0,), ALLOW),  # personality(PER_LINUX)
        (135, (0x0400000,), REFUSE | errno.EPERM),
        (999, (), REFUSE | errno.ENOSYS),  # newer than the profile
    ],
)
def test_the_default_filter(default: bytes, number: int, args: tuple[int, ...], result: int) -> None:
    assert decide(default, X86_64, number, *args) == result


@needs_libseccomp
def test_other_architectures(default: bytes) -> None:
    assert decide(default, I386, 3) == ALLOW  # read
    assert decide(default, I386, 21) == REFUSE | errno.EPERM  # mount
    assert decide(default, I386, 999) == REFUSE | errno.ENOSYS
    assert decide(default, X86_64, 0x40000000) == ALLOW  # read of x32
    assert decide(default, 0xC00000B7, 0) == 0  # ARM: killed


@needs_libseccomp
def test_capabilities_open_calls() -> None:
    admin = compile_filter(seccomp.builtin((*capabilities.DEFAULT, "CAP_SYS_ADMIN")))
    assert decide(admin, X86_64, 165) == ALLOW
    assert decide(admin, X86_64, 56, 0x10000000) == ALLOW


@needs_libseccomp
def test_a_profile_of_the_users_own() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
            {
                "name": "close",
                "action": "SCMP_ACT_KILL_PROCESS",
                "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_GE"}],
            },
        ],
    }
    program = compile_filter(seccomp.oci(profile, ()))
    assert decide(program, X86_64, 83) == REFUSE | 95
    assert decide(program, X86_64, 3, 6) == ALLOW
    assert decide(program, X86_64, 3, 8) == 0x80000000
    assert decide(program, X86_64, 999) == ALLOW


@needs_libseccomp
def test_two_conditions_on_one_argument_are_alternatives() -> None:
    arguments = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2)]
    rule = {"names": ["close"], "action": "SCMP_ACT_ALLOW", "args": arguments}
    program = compile_filter({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})
    assert [decide(program, X86_64, 3, value) for value in (1, 2, 3)] == [ALLOW, ALLOW, REFUSE | errno.EPERM]


@needs_libseccomp
def test_the_spec_gets_the_filter_in_place_of_the_profile() -> None:
    filters = FilterCache()
    spec = {"linux": {"seccomp": seccomp.builtin(()), "resources": {}}, "annotations": {"a": "b"}}
    made = filters.apply(spec)
    assert "seccomp" not in made["linux"]
    assert made["annotations"]["a"] == "b"
    assert made["annotations"][ANNOTATION]
    assert "seccomp" in spec["linux"], "the spec that others may look at is left as it is"
    listener = {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}}}
    assert filters.apply(listener) is listener
    with pytest.raises(Unsupported):
        compile_filter({"defaultAction": "SCMP_ACT_NOTIFY"})


def test_dockers_format() -> None:
    profile: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_X"]}},
            {"names": ["b"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_X"]}},
            {"names": ["c"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["made-up"]}},
            {"names": ["d"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"names": ["e"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "3.0"}},
        ],
    }
    assert [rule["names"] for rule in seccomp.oci(profile, ())["syscalls"]] == [["b"], ["e"]]
    assert [rule["names"] for rule in seccomp.oci(profile, ("CAP_X",))["syscalls"]] == [["a"], ["e"]]


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"defaultAction": 7},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {"a": 1}},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"]}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [1], "action": "SCMP_ACT_ALLOW"}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"nmaes": ["a"], "action": "SCMP_ACT_ALLOW"}]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": [1]}],
        },
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"name": "a", "action": "SCMP_ACT_ALLOW", "args": [{"index": 9}]}],
        },
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x"], "archMap": [{}]},
    ],
)
def test_profiles_that_are_none(profile: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        seccomp.parse(json.dumps(profile))
