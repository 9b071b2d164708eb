# SPDX-License-Identifier: Apache-2.0
"""Make sure that the programs of this build are loaded and pinned.

Owns the child process that compiles, and the note beside the pins that says what they were made
of, so that an agent restarting with the same build and settings needs no compiler. Imports abi,
source, syscall; bcc only ever in the child.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

from vxlane.datapath import syscall
from vxlane.datapath.abi import ABI, Program
from vxlane.datapath.bpffs import ensure_bpffs
from vxlane.datapath.source import flatten
from vxlane.errors import CompileError, ConfigError
from vxlane.util import files

_LOCATED = re.compile(r"^bpf/\w+\.[ch]:\d+:\d+: (?:fatal )?error: .*$", re.MULTILINE)


class Strictness(IntEnum):
    """What becomes of packets that fail an identity check."""

    PASS = 0
    DROP = 1


@dataclass(frozen=True, slots=True)
class Constants:
    """Compiled into the programs; the sizes count map entries.

    `mark` is carried by routed packets from the bypass to the NIC's egress and taken off there.
    """

    vni: int = 1
    port: int = 8472
    strict: Strictness = Strictness.PASS
    mark: int = 0x766C0000
    max_peers: int = 16384
    max_pods: int = 1024
    max_flows: int = 262144

    def defines(self) -> dict[str, int]:
        """The constants as the preprocessor's names and values."""
        return {name.upper(): int(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class LoadReport:
    """`compiled`: were programs made now; `headers`: which kernel headers they were made with."""

    compiled: bool
    headers: str


def pin_directory(state: Path) -> Path:
    """The pins of this contract version; another version never reads them."""
    return state / "bpf" / str(ABI)


def ensure_loaded(state: Path, constants: Constants) -> LoadReport:
    """Mount the bpffs, compile and pin unless this very build is pinned already.

    Raises CompileError with the compiler's first error, by real file and line. The programs that
    stand attached go on until Hooks.refresh() replaces them.
    """
    if re.search(r'[:"\\\s]', str(state)):
        msg = f"state directory {str(state)!r} must be free of spaces, quotes, colons, backslashes"
        raise ConfigError(msg)
    pins = pin_directory(state)
    ensure_bpffs(state / "bpf")
    pins.mkdir(mode=0o700, exist_ok=True)
    note = state / f"programs-{ABI}.json"
    digest = _digest(constants)
    known = _read_note(note)
    if known.get("digest") == digest and all((pins / item.label).exists() for item in Program):
        return LoadReport(compiled=False, headers=known["headers"])
    _unpin_other_sizes(pins, constants)
    answer = _compile({"pins": str(pins), "defines": constants.defines()})
    files.replace(note, json.dumps({"digest": digest, "headers": answer["headers"]}))
    return LoadReport(compiled=True, headers=answer["headers"])


def _unpin_other_sizes(pins: Path, constants: Constants) -> None:
    """Unpin everything if a map has another size than asked for: a map that is pinned stays as it
    is, whatever the programs are compiled with. Until all is made anew, packets take the kernel
    path.
    """
    sizes = {name: getattr(constants, f"max_{name}") for name in ("peers", "pods", "flows")}
    for name, size in sizes.items():
        try:
            descriptor = syscall.obj_get(pins / name)
        except FileNotFoundError:
            continue
        try:
            is_as_asked = syscall.map_shape(descriptor).max_entries == size
        finally:
            os.close(descriptor)
        if not is_as_asked:
            for pin in pins.iterdir():
                pin.unlink()
            return


def retire_others(state: Path) -> bool:
    """Detach and unpin other contract versions, once this one stands on every hook.

    Answers whether there were any. Until then an older version's programs and maps serve. Filters
    by clsact need no retiring: ours took their place, for they are told apart by priority and
    handle.
    """
    were_any = False
    for directory in (state / "bpf").iterdir():
        # A kernel with CONFIG_BPF_PRELOAD has files of its own here: maps.debug, progs.debug.
        if directory.name == str(ABI) or not directory.is_dir():
            continue
        for pin in directory.iterdir():
            if pin.name.startswith("link-"):
                syscall.link_detach(pin)
            pin.unlink()
        directory.rmdir()
        were_any = True
    return were_any


def _digest(constants: Constants) -> str:
    made_of = json.dumps([flatten(), constants.defines(), os.uname().release])
    return hashlib.sha256(made_of.encode()).hexdigest()


def _read_note(path: Path) -> dict[str, str]:
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _compile(request: dict[str, object]) -> dict[str, str]:
    child = subprocess.run(
        [sys.executable, "-m", "vxlane.datapath.compile"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode == 0:
        answer: dict[str, str] = json.loads(child.stdout.splitlines()[-1])
        return answer
    if "No module named 'bcc'" in child.stderr:
        msg = "bcc is missing; install the package python3-bpfcc (PyPI's bcc is another project)"
        raise CompileError(msg)
    located = _LOCATED.search(child.stderr)
    raise CompileError(located[0] if located else _last_words(child.stderr))


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "the programs did not load: " + " | ".join(lines[-6:])
