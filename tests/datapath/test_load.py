# SPDX-License-Identifier: Apache-2.0
"""Compiling and loading: errors by file and line, and a compiler only where one is needed."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from importlib import resources
from pathlib import Path

import pytest
from node import Node

from vxlane.datapath import programs, syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.bpffs import ensure_bpffs
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import Constants, ensure_loaded, pin_directory, retire_others
from vxlane.errors import CompileError

LABELS = {program.label for program in Program}
OBJ_INFO = 15


def identities(state: Path) -> dict[str, int]:
    """The kernel's number of every pinned program and map."""
    found = {}
    for pin in pin_directory(state).iterdir():
        descriptor = syscall.obj_get(pin)
        # struct bpf_prog_info and struct bpf_map_info both begin with type and id.
        info = ctypes.create_string_buffer(8)
        attr = struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info))
        syscall._bpf(OBJ_INFO, attr)
        os.close(descriptor)
        found[pin.name] = struct.unpack("=II", info.raw)[1]
    return found


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("missing", ["VNI", "STRICT", "MARK"])
def test_error_names_file_and_line(tmp_path: Path, missing: str) -> None:
    """Without one of the constants the error names a line of a real file that needs it."""
    defines = {name: value for name, value in Constants().defines().items() if name != missing}
    ensure_bpffs(tmp_path / "bpf")
    with pytest.raises(CompileError) as raised:
        programs._compile({"pins": str(tmp_path / "bpf"), "defines": defines})
    located = re.match(r"bpf/(\w+\.[ch]):(\d+):(\d+): error: .*'(\w+)'$", str(raised.value))
    assert located, raised.value
    name, line, column, identifier = located.groups()
    text = resources.files("vxlane").joinpath("bpf").joinpath(name).read_text().splitlines()
    assert identifier == missing
    # At the column stands the constant, or the macro that needs it: VXLAN_VNI, be16(PORT).
    assert re.match(rf"[\w(]*{missing}\b", text[int(line) - 1][int(column) - 1 :])


@pytest.mark.usefixtures("node")
def test_refusal_of_the_verifier(tmp_path: Path) -> None:
    """Programs that compile and don't load make an error with the last words about it."""
    ensure_bpffs(tmp_path / "bpf")
    defines = {**Constants().defines(), "MAX_PEERS": 0}
    with pytest.raises(CompileError, match="the programs did not load: "):
        programs._compile({"pins": str(tmp_path / "bpf"), "defines": defines})


@pytest.fixture(scope="module")
def state(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory in which this build is loaded."""
    made = tmp_path_factory.mktemp("state")
    assert node.chamber.run(ensure_loaded, made, Constants()).compiled
    return made


def test_same_build_needs_no_compiler(state: Path) -> None:
    """A second start with the same constants compiles nothing and finds all in place."""
    ensure_loaded(state, Constants())
    pinned = identities(state)
    report = ensure_loaded(state, Constants())
    assert not report.compiled
    assert "headers" in report.headers
    assert identities(state) == pinned


def test_other_constants_are_another_build(state: Path) -> None:
    """With other constants, and back with the first, every program is replaced and no map."""
    ensure_loaded(state, Constants())
    pinned = identities(state)
    for constants in (Constants(vni=77), Constants()):
        assert ensure_loaded(state, constants).compiled
        after = identities(state)
        assert {name for name, number in after.items() if pinned.pop(name) != number} == LABELS
        assert not pinned
        pinned = after


def test_damaged_note(state: Path) -> None:
    """A note that can't be read means compiling once more, nothing worse."""
    ensure_loaded(state, Constants())
    next(state.glob("programs-*.json")).write_text("{")
    assert ensure_loaded(state, Constants()).compiled
    assert not ensure_loaded(state, Constants()).compiled


def test_missing_pin(state: Path) -> None:
    """A pin that someone removed is there again."""
    ensure_loaded(state, Constants())
    pin_directory(state).joinpath("to_pod").unlink()
    assert ensure_loaded(state, Constants()).compiled
    assert identities(state).keys() >= LABELS


def test_retirement(state: Path) -> None:
    """Of the pins on the bpffs those of other contract versions go, and nothing else."""
    other = state / "bpf" / "0"
    other.mkdir()
    program = syscall.obj_get(pin_directory(state) / "to_pod")
    syscall.obj_pin(program, other / "to_pod")
    os.close(program)
    pinned = identities(state)
    retire_others(state)
    assert not other.exists()
    assert identities(state) == pinned


def test_another_size(state: Path) -> None:
    """With another size of a map all maps are new, and have the size that was asked for."""
    pinned = identities(state)
    assert ensure_loaded(state, Constants(max_pods=77)).compiled
    after = identities(state)
    assert after.keys() == pinned.keys()
    assert not set(after.values()) & set(pinned.values())
    with Maps.open(pin_directory(state)) as maps:
        assert maps.capacity("pods") == 77
