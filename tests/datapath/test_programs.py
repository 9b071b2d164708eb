# SPDX-License-Identifier: Apache-2.0
"""What the loader decides before it asks a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from vxlane.datapath import programs
from vxlane.datapath.abi import ABI
from vxlane.datapath.programs import Constants, Strictness, ensure_loaded, pin_directory
from vxlane.errors import ConfigError


@pytest.mark.parametrize("name", ["a b", 'a"b', "a:b", "a\\b", "a\nb"])
def test_state_directory_with_a_special_character(tmp_path: Path, name: str) -> None:
    """A path that can't stand in the programs' text is refused before anything is made."""
    with pytest.raises(ConfigError, match="must be free of spaces, quotes, colons, backslashes"):
        ensure_loaded(tmp_path / name, Constants())
    assert not (tmp_path / name).exists()


def test_constants_become_defines() -> None:
    """Every constant is a number under its name in capitals."""
    defines = Constants(vni=9, strict=Strictness.DROP).defines()
    assert defines["VNI"] == 9
    assert defines["STRICT"] == 1
    assert defines["PORT"] == 8472
    assert all(type(value) is int for value in defines.values())


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
