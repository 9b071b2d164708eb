# SPDX-License-Identifier: Apache-2.0
"""The small language of bpf/vxlane.h: what it holds is read rightly, anything else is refused."""

from __future__ import annotations

import ctypes

import pytest

from vxlane.datapath.abi import HEADER, Guard, Header, Program, Verdict, VerdictKind, Way
from vxlane.errors import ContractError


def test_struct_of_integers_and_arrays() -> None:
    """Members follow each other as C lays them out."""
    made = Header("struct a { __u64 x; __u32 y[2]; __u8 mac[6]; __u8 pad[2]; };").structs["a"]
    assert [(name, getattr(made, name).offset) for name in ("x", "y", "mac", "pad")] == [
        ("x", 0),
        ("y", 8),
        ("mac", 16),
        ("pad", 22),
    ]
    assert ctypes.sizeof(made) == 24


def test_big_endian_members() -> None:
    """A __be member holds network order and is read as a number."""
    made = Header("struct a { __be16 port; __be16 other; __be32 address; };").structs["a"]
    assert bytes(made(port=0x1234, address=0x0A000001)).hex() == "123400000a000001"


def test_enum_values() -> None:
    """Enumerators count on from the last value, as in C."""
    enums = Header("enum a { A, B, C = 7, D, E = 1 << 4, F, };").enums
    assert enums == {"a": {"A": 0, "B": 1, "C": 7, "D": 8, "E": 16, "F": 17}}


def test_comments_and_guard_are_no_content() -> None:
    """Comments and the include guard are passed over."""
    text = "/* a\n b */\n#ifndef VXLANE_H\n#define VXLANE_H\nenum a { A, /* 1 */ B };\n#endif\n"
    assert Header(text).enums == {"a": {"A": 0, "B": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("struct a { int x; };", "struct a: 'int x' is no fixed-width integer"),
        ("struct a { __u32 *x; };", r"struct a: '__u32 \*x' is no fixed-width integer"),
        ("struct a { __u32 x : 3; };", "struct a: '__u32 x : 3' is no fixed-width integer"),
        ("struct a { __u32 x[SIZE]; };", r"struct a: '__u32 x\[SIZE\]' is no fixed-width"),
        ("struct a { struct b { __u8 x; }; };", "struct a: 'struct b { __u8 x' is no fixed"),
        ("struct a { union { __u8 x; }; };", "struct a: 'union { __u8 x' is no fixed"),
        ("struct a { __u8 x; __u32 y; };", "struct a has padding without a name; add a pad member"),
        ("struct a { __u64 x; __u8 y; };", "struct a has padding without a name; add a pad member"),
        ("struct a { __u8 x; } __attribute__((packed));", "can't read 'struct a"),
        ("#define SIZE 3", "can't read '#define SIZE 3'; only plain enums and structs"),
        ("#include <linux/bpf.h>", "can't read '#include <linux/bpf.h>'"),
        ("typedef __u32 a;", "can't read 'typedef __u32 a;'"),
        ("enum a { A = sizeof(int) };", r"enum a: 'A = sizeof\(int\)' is neither a number nor 1"),
        ("enum a { A = 1, B = A + 1 };", r"enum a: 'B = A \+ 1' is neither a number nor 1 << n"),
        ("enum a { A = -1 };", "enum a: 'A = -1' is neither a number nor 1 << n"),
    ],
)
def test_refused(text: str, message: str) -> None:
    """What is not of the language is refused by name, never read as something else."""
    with pytest.raises(ContractError, match=f"^vxlane.h: {message}"):
        Header(text)


def test_enums_of_python_are_the_headers() -> None:
    """Program, Verdict, Way and Guard hold every enumerator but the closing count."""
    for python, name in (
        (Program, "program"),
        (Verdict, "verdict"),
        (Way, "way"),
        (Guard, "guard"),
    ):
        prefix = f"{name.upper()}_"
        members = {f"{prefix}{member.name}": member.value for member in python}
        assert members == {
            label: value for label, value in HEADER.enums[name].items() if label != f"{prefix}COUNT"
        }


def test_counts_close_their_enums() -> None:
    """The counts that size the counters map are those of Python's enums."""
    assert HEADER.enums["program"]["PROGRAM_COUNT"] == len(Program)
    assert HEADER.enums["verdict"]["VERDICT_COUNT"] == len(Verdict)


def test_labels() -> None:
    """A label is the name in small letters: metric, pin and C function alike."""
    assert Verdict.NO_PEER.label == "no_peer"
    assert Program.FROM_NIC.label == "from_nic"


def test_kinds_of_verdicts() -> None:
    """Five verdicts are bypassed, seven identity checks, three no pod-to-pod traffic."""
    of_kind = {kind: {v.label for v in Verdict if v.kind is kind} for kind in VerdictKind}
    assert of_kind[VerdictKind.BYPASSED] == {
        "encapsulated",
        "decapsulated",
        "switched",
        "routed",
        "nat",
    }
    assert of_kind[VerdictKind.LEARNED] == {"learned"}
    assert of_kind[VerdictKind.FOREIGN] == {"not_ip", "not_overlay", "no_peer"}
    assert of_kind[VerdictKind.IDENTITY] == {
        "spoofed_address",
        "spoofed_mac",
        "not_our_vtep",
        "unknown_vtep",
        "wrong_vtep",
        "forged_tunnel",
        "tags",
    }
