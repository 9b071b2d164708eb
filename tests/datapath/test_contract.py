# SPDX-License-Identifier: Apache-2.0
"""Python, clang and bcc read bpf/vxlane.h alike, and every way to load ends in the same code."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from node import Node

from vxlane.datapath import compiler, load, precompiled, syscall
from vxlane.datapath.abi import HEADER
from vxlane.datapath.bpffs import ensure_bpffs
from vxlane.datapath.programs import Constants, Strictness
from vxlane.datapath.records import SHAPES
from vxlane.datapath.source import Part


@pytest.fixture(scope="module")
def types(_machine: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The header as clang sees it: the BTF types of an object that uses all of it."""
    directory = tmp_path_factory.mktemp("btf")
    uses = [f"struct {name} a_{name};" for name in HEADER.structs]
    uses += [f"enum {name} an_{name};" for name in HEADER.enums]
    source, made = directory / "uses.c", directory / "uses.o"
    source.write_text("\n".join(["#include <linux/types.h>", '#include "vxlane.h"', *uses, ""]))
    includes = [
        f"-I{resources.files('vxlane').joinpath('bpf')}",
        f"-I/usr/include/{platform.machine()}-linux-gnu",
    ]
    clang = ["clang", "-g", "-Wall", "-Werror", "-target", "bpf", *includes]
    subprocess.run([*clang, "-c", source, "-o", made], check=True)
    dump = subprocess.run(
        ["bpftool", "--json", "btf", "dump", "file", made], check=True, capture_output=True
    )
    found: list[dict[str, Any]] = json.loads(dump.stdout)["types"]
    return found


def layout(kind: Any) -> dict[str, Any]:
    """Size and offsets of a ctypes type."""
    return {
        "size": ctypes.sizeof(kind),
        "members": {name: getattr(kind, name).offset for name, *_ in getattr(kind, "_fields_", ())},
    }


def test_structs_are_clangs(types: list[dict[str, Any]]) -> None:
    """Clang gives every struct the size and every member the offset that Python does."""
    structs = {
        kind["name"]: {
            "size": kind["size"],
            "members": {member["name"]: member["bits_offset"] // 8 for member in kind["members"]},
        }
        for kind in types
        if kind["kind"] == "STRUCT"
    }
    assert structs == {name: layout(kind) for name, kind in HEADER.structs.items()}


def test_enums_are_clangs(types: list[dict[str, Any]]) -> None:
    """Clang gives every enumerator the value that Python does."""
    enums = {
        kind["name"]: {member["name"]: member["val"] for member in kind["values"]}
        for kind in types
        if kind["kind"] == "ENUM"
    }
    assert enums == HEADER.enums


CONSTANTS = Constants(vni=0xABCDEF, port=4789, strict=Strictness.DROP)


@pytest.fixture(scope="module")
def witness(_machine: None) -> dict[str, Any]:
    """The maps and programs as bcc makes and loads them by itself."""
    return heard(dict(zip(HEADER.enums["node"], CONSTANTS.terms().numbers, strict=False)))


def heard(numbers: dict[str, int]) -> dict[str, Any]:
    """What the witness says of programs with these numbers."""
    script = Path(__file__).with_name("bcc_witness.py")
    done = subprocess.run(
        [sys.executable, script, json.dumps(numbers)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.usefixtures("_machine")
def test_the_witness_needs_no_number() -> None:
    """CONTRIBUTING.md calls it with none, to see what the verifier says."""
    assert heard({})["tags"]


def test_maps_are_bccs(witness: dict[str, Any]) -> None:
    """Bcc gives every map the keys and leaves that Python writes and reads."""
    expected = {
        name: {"key": layout(key), "leaf": layout(leaf)} for name, (key, leaf) in SHAPES.items()
    }
    assert witness["tables"] == expected


def test_programs_are_bccs(node: Node, witness: dict[str, Any], tmp_path, monkeypatch) -> None:
    """Programs that were compiled elsewhere, those compiled here, and those that bcc loads with the
    numbers compiled in are the same instructions.
    """
    assert node
    compiled = compiler.run(Part.PROGRAMS, tmp_path / "log")
    portable = compiler.run(Part.PROGRAMS, tmp_path / "log", is_portable=True)
    monkeypatch.setattr(precompiled, "FILE", tmp_path / "compiled.json")
    precompiled.FILE.write_text(precompiled.text({Part.PROGRAMS: portable}))
    brought = precompiled.find(Part.PROGRAMS)
    assert brought
    ensure_bpffs(tmp_path / "bpf")
    for made in (compiled, brought):
        load.pin(made, tmp_path / "bpf", CONSTANTS.terms(), tmp_path / "log")
        assert {label: tag(tmp_path / "bpf" / label) for label in made.programs} == witness["tags"]


def tag(pin: Path) -> str:
    """The kernel's digest of a program's instructions."""
    descriptor = syscall.obj_get(pin)
    try:
        return syscall.object_info(descriptor, 16)[8:].hex()
    finally:
        os.close(descriptor)
