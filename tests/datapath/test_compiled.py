# SPDX-License-Identifier: Apache-2.0
"""What the loader writes into instructions, and what it leaves alone."""

from __future__ import annotations

import struct

import pytest

from vxlane.datapath.abi import HEADER
from vxlane.datapath.compiled import RING_BYTES, Compiled, Table, linked, unlinked

MARK = HEADER.enums["mark"]["MARK_OF_NODE"]


def load_number(source: int, number: int, register: int = 3, high: int = 0) -> bytes:
    """ld_imm64 (linux/bpf.h), two slots."""
    first = struct.pack("<BBhI", 0x18, source << 4 | register, 0, number)
    return first + struct.pack("<BBhI", 0, 0, 0, high)


def test_maps_and_numbers_are_put_in() -> None:
    """Descriptors where maps stand, the node's numbers where the mark does, the register stays."""
    code = load_number(1, 1, 5) + load_number(MARK, 0, 7) + load_number(1, 0)
    made = linked(code, maps=[41, 42], numbers=[0xEFCDAB00])
    assert made == load_number(1, 42, 5) + load_number(0, 0xEFCDAB00, 7) + load_number(1, 41)


def test_all_else_is_left() -> None:
    """A number of the program's own, its upper half that looks like a load, any other code."""
    other = struct.pack("<BBhi", 0xB7, MARK << 4, 0x18, 1)
    code = load_number(0, 1, high=0x18) + other + load_number(0, 0)
    assert linked(code, maps=[9, 9], numbers=[9, 9]) == code


def test_descriptors_become_places() -> None:
    """What a compiler made has no descriptor left, and its marks stay."""
    code = load_number(1, 30) + load_number(MARK, 2) + load_number(1, 7)
    assert unlinked(code, {7: 0, 30: 1}) == load_number(1, 1) + load_number(MARK, 2) + load_number(
        1, 0
    )


def test_a_document_holds_all() -> None:
    """What is written is what is read."""
    maps = {
        "peers": Table(kind=11, key=20, value=52, entries="MAX_PEERS", flags=1),
        "events": Table(kind=27, key=0, value=0, entries=RING_BYTES, flags=0),
    }
    made = Compiled("headers", maps, {"from_pod": bytes(range(16))})
    assert Compiled.of(made.document()) == made
    assert [table.most({"MAX_PEERS": 3, RING_BYTES: 8192}) for table in maps.values()] == [3, 8192]


@pytest.mark.parametrize("key", ["headers", "maps", "programs"])
def test_a_document_that_lacks_something(key: str) -> None:
    """It is refused."""
    document = Compiled("", {}, {}).document()
    del document[key]
    with pytest.raises(KeyError):
        Compiled.of(document)
