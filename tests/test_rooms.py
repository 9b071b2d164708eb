# SPDX-License-Identifier: Apache-2.0
"""The house: every room stands in a layer, has a README, and tests in the folder of its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "loader" / "vxlane"
ROOMS = sorted(folder.parent.name for folder in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(file.stem for file in PACKAGE.glob("*.py") if file.stem != "__init__")


def layers() -> list[str]:
    """What the first contract of import-linter orders."""
    contract = re.search(
        r'name = "A room imports.*?layers = \[(.*?)\]',
        (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert contract
    return re.findall(r"vxlane\.(\w+)", contract[1])


def test_every_room_stands_in_one_layer() -> None:
    """A room that no layer names could import from anywhere, and from any room."""
    assert sorted(layers()) == sorted([*ROOMS, *MODULES])


@pytest.mark.parametrize("room", [*(f"loader/vxlane/{room}" for room in ROOMS), "cni", "bpf"])
def test_every_room_has_a_readme(room: str) -> None:
    """It begins with the room's name and what the room is."""
    text = (ROOT / room / "README.md").read_text(encoding="utf-8")
    assert re.match(rf"# {Path(room).name}: \S", text)


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_tests_of_its_name(room: str) -> None:
    """A change in a room is tried by the folder of tests that has its name."""
    assert list((ROOT / "tests" / room).glob("test_*.py"))


def test_helper_modules_have_names_of_their_own() -> None:
    """All folders of tests share one search path: of two equal names one would hide the other."""
    helpers = [
        file.stem
        for file in (ROOT / "tests").glob("*/*.py")
        if not file.stem.startswith("test_")
        and file.stem != "conftest"
        # Run by hand, by path.
        and file.parent.name != "bench"
    ]
    assert sorted(set(helpers)) == sorted(helpers)
