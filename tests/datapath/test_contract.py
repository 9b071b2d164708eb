# SPDX-License-Identifier: Apache-2.0
"""Python, clang and bcc read bpf/vxlane.h alike: every size, offset and value."""

from __future__ import annotations

import ctypes
import json
import platform
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from vxlane.datapath.abi import HEADER
from vxlane.datapath.bpffs import ensure_bpffs
from vxlane.datapath.records import SHAPES


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


@pytest.mark.usefixtures("node")
def test_maps_are_bccs(tmp_path: Path) -> None:
    """Bcc gives every map the keys and leaves that Python writes and reads."""
    ensure_bpffs(tmp_path / "bpf")
    witness = Path(__file__).with_name("bcc_witness.py")
    done = subprocess.run(
        [sys.executable, witness, tmp_path / "bpf"], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    expected = {
        name: {"key": layout(key), "leaf": layout(leaf)} for name, (key, leaf) in SHAPES.items()
    }
    assert json.loads(done.stdout) == expected
