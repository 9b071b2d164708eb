# SPDX-License-Identifier: Apache-2.0
"""What the loader decides before it asks a compiler."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from vxlane.datapath import programs, source
from vxlane.datapath.abi import ABI, HEADER
from vxlane.datapath.programs import Constants, Strictness, pin_directory


def test_constants_become_numbers_and_sizes() -> None:
    """VNI and port are as they stand in a packet, in the order of the header's NODE_...."""
    terms = Constants(vni=9, strict=Strictness.DROP, max_flows=400).terms()
    numbers = dict(zip(HEADER.enums["node"], terms.numbers, strict=False))
    assert numbers["NODE_VNI"].to_bytes(4, sys.byteorder) == bytes((0, 0, 9, 0))
    assert numbers["NODE_PORT"].to_bytes(2, sys.byteorder) == (8472).to_bytes(2, "big")
    assert numbers["NODE_STRICT"] == 1
    assert len(terms.numbers) == HEADER.enums["node"]["NODE_COUNT"]
    assert terms.sizes["MAX_FLOWS"] == 400
    assert terms.sizes["MAX_TRANSLATIONS"] == 101


def test_builds_are_told_apart() -> None:
    """Any other constant is another build, the same constants are the same."""
    builds = [
        Constants(),
        Constants(vni=2),
        Constants(port=4789),
        Constants(strict=Strictness.DROP),
        Constants(max_flows=7),
    ]
    assert len({programs._digest(build) for build in builds}) == len(builds)
    assert programs._digest(Constants()) == programs._digest(Constants())


@pytest.mark.parametrize("name", ["compile.py", "compiled.py", "source.py"])
def test_what_compiles_is_part_of_a_build(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other flags for the compiler the same sources are other programs."""
    before = source.digest(), programs._digest(Constants())
    copies = [Path(shutil.copy(path, tmp_path)) for path in source._COMPILED_BY]
    monkeypatch.setattr(source, "_COMPILED_BY", copies)
    assert (source.digest(), programs._digest(Constants())) == before
    with (tmp_path / name).open("a") as copy:
        copy.write("# another flag\n")
    assert source.digest() != before[0]
    assert programs._digest(Constants()) != before[1]


@pytest.mark.parametrize(
    "words", ["", "{", "[]", "7", '"digest"', '{"digest": "d", "headers": "h"}']
)
def test_unreadable_note_is_no_note(tmp_path: Path, words: str) -> None:
    """Whatever the note holds, it is a dictionary or nothing."""
    (tmp_path / "note").write_text(words)
    assert programs._read_note(tmp_path / "note") == {}
    assert programs._read_note(tmp_path / "missing") == {}


def test_pins_carry_the_contract_version() -> None:
    """Another version of the contract never finds these pins."""
    assert pin_directory(Path("/run/vxlane")) == Path(f"/run/vxlane/bpf/{ABI}")
