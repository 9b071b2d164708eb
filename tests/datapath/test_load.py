# SPDX-License-Identifier: Apache-2.0
"""Compiling and loading: errors by file and line, and a compiler only where one is needed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from node import Node

import vxlane
from vxlane.datapath import compiler, load, precompiled, syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.compiled import Compiled, Table
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import Constants, ensure_loaded, pin_directory, retire_others
from vxlane.datapath.source import Part
from vxlane.errors import CompileError, KernelError
from vxlane.lab.waiting import wait_for

EXIT = bytes.fromhex("b700000000000000 9500000000000000")
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
def test_error_names_file_and_line(tmp_path: Path, monkeypatch) -> None:
    """An error in the programs is told by the real file, and the line in it."""
    broken = tmp_path / "vxlane"
    shutil.copytree(Path(vxlane.__file__).parent, broken)
    text = (
        (broken / "bpf" / "nat.h")
        .read_text()
        .replace("#include", "int wrong = unknown;\n#include", 1)
    )
    (broken / "bpf" / "nat.h").write_text(text)
    line = text[: text.index("unknown")].count("\n") + 1
    # Isolated Python reads no PYTHONPATH, so the child is told of the copy by a launcher.
    launcher = tmp_path / "python"
    launcher.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys, runpy; sys.path.insert(0, "
        f'"{tmp_path}"); runpy.run_module("vxlane.datapath.compile", run_name="__main__")\'\n'
    )
    launcher.chmod(0o755)
    monkeypatch.setattr(compiler.sys, "executable", str(launcher))
    with pytest.raises(CompileError, match=rf"^bpf/nat\.h:{line}:\d+: error: .*'unknown'; all"):
        compiler.run(Part.PROGRAMS, tmp_path / "compile.log")


@pytest.mark.usefixtures("node")
def test_refusal_of_the_verifier(tmp_path: Path, state: Path) -> None:
    """A program that is refused makes an error with the last words, a file has all of them, and
    none was replaced.
    """
    pinned = identities(state)
    endless = {**dict.fromkeys(LABELS, EXIT), "to_pod": bytes.fromhex("0500ffff00000000")}
    log = tmp_path / "compile.log"
    with pytest.raises(
        CompileError, match=r"did not load: to_pod: .*; all of the verifier's words"
    ):
        load.pin(Compiled("", {}, endless), pin_directory(state), Constants().terms(), log)
    assert log.read_text()
    assert identities(state) == pinned


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "Invalid argument"), (0xFFFFFFFF, "Argument list too long; give a smaller --max-pods")],
)
def test_a_size_that_the_kernel_refuses(tmp_path: Path, state: Path, size: int, words: str) -> None:
    """The error names the map, and the option if that is too large."""
    table = {"pods": Table(kind=1, key=4, value=4, entries="MAX_PODS", flags=0)}
    with pytest.raises(KernelError, match=f"make the map pods: {words}"):
        load.pin(
            Compiled("", table, {}),
            state / "bpf",
            Constants(max_pods=size).terms(),
            tmp_path / "log",
        )


@pytest.fixture(scope="module")
def _no_package() -> Iterator[None]:
    """No compiled programs have come with this vxlane."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precompiled, "FILE", Path("none"))
        yield


@pytest.fixture(scope="module")
def state(node: Node, _no_package: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory in which this build is loaded."""
    made = tmp_path_factory.mktemp("state")
    assert node.chamber.run(ensure_loaded, made, Constants()).loaded
    return made


def test_same_build_needs_no_compiler(state: Path) -> None:
    """A second start with the same constants loads nothing and finds all in place."""
    ensure_loaded(state, Constants())
    pinned = identities(state)
    report = ensure_loaded(state, Constants())
    assert not report.loaded
    assert "headers" in report.headers
    assert identities(state) == pinned


def test_other_constants_are_another_build(state: Path) -> None:
    """With other constants, and back with the first, every program is replaced and no map."""
    ensure_loaded(state, Constants())
    pinned = identities(state)
    for constants in (Constants(vni=77), Constants()):
        assert ensure_loaded(state, constants).loaded
        after = identities(state)
        assert {name for name, number in after.items() if pinned.pop(name) != number} == LABELS
        assert not pinned
        pinned = after


def test_damaged_note(state: Path) -> None:
    """A note that can't be read means compiling once more, nothing worse."""
    ensure_loaded(state, Constants())
    next(state.glob("programs-*.json")).write_text("{")
    assert ensure_loaded(state, Constants()).loaded
    assert not ensure_loaded(state, Constants()).loaded


def test_missing_pin(state: Path) -> None:
    """A pin that someone removed is there again."""
    ensure_loaded(state, Constants())
    pin_directory(state).joinpath("to_pod").unlink()
    assert ensure_loaded(state, Constants()).loaded
    assert identities(state).keys() >= LABELS


@pytest.mark.parametrize("name", ["to_pod", "settings", "from_nic"])
def test_replaced_pin(state: Path, name: str) -> None:
    """Another object in a pin's place is not taken over: everything is made anew."""
    ensure_loaded(state, Constants())
    pinned, pins = identities(state), pin_directory(state)
    other = syscall.obj_get(pins / ("pods" if name == "from_nic" else "from_pod"))
    syscall.obj_replace(other, pins / name)
    os.close(other)
    assert ensure_loaded(state, Constants()).loaded
    after = identities(state)
    assert after.keys() == pinned.keys()
    assert not set(after.values()) & set(pinned.values())


def test_a_strangers_bcc_is_not_imported(state: Path, tmp_path, monkeypatch) -> None:
    """What lies in the current directory, or in PYTHONPATH, is no part of what root runs."""
    (tmp_path / "bcc.py").write_text(f"open({str(tmp_path / 'came')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ensure_loaded(state, Constants(vni=5)).loaded
    assert not (tmp_path / "came").exists()


AGENT = """
import sys
from pathlib import Path
from vxlane.datapath import precompiled
from vxlane.datapath.programs import Constants, ensure_loaded
precompiled.FILE = Path("none")
ensure_loaded(Path(sys.argv[1]), Constants(vni=int(sys.argv[2])))
"""


@contextlib.contextmanager
def compiling(state: Path, vni: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that loads programs, and the child that it has compile them."""
    command = [sys.executable, "-c", AGENT, str(state), str(vni)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            yield process, int(wait_for(children.read_text, "the compiler").split()[0])
        finally:
            process.kill()


def test_a_compiler_without_a_parent_ends(state: Path) -> None:
    """Kill -9 of the agent ends its compiler, and what was pinned is as it was."""
    ensure_loaded(state, Constants())
    pinned = identities(state)
    with compiling(state, 8) as (process, child):
        end = os.pidfd_open(child)
        process.kill()
        assert select.select([end], [], [], 5)[0]
        os.close(end)
    assert identities(state) == pinned
    assert not ensure_loaded(state, Constants()).loaded


def test_want_of_memory_has_words(state: Path) -> None:
    """A compiler that the kernel ends is reported as one that lacked memory."""
    with compiling(state, 9) as (process, child):
        os.kill(child, signal.SIGKILL)
        assert process.stderr
        assert "it needs 120 MB of memory; raise the limit" in process.stderr.read()


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
    assert ensure_loaded(state, Constants(max_pods=77)).loaded
    after = identities(state)
    assert after.keys() == pinned.keys()
    assert not set(after.values()) & set(pinned.values())
    with Maps.open(pin_directory(state)) as maps:
        assert maps.capacity("pods") == 77
