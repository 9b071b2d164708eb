# SPDX-License-Identifier: Apache-2.0
"""Make sure that the programs of this build are loaded and pinned.

Owns the note beside the pins that says which objects they are and what they were made of, so that
an agent restarting with the same build and settings needs no compiler.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from vxlane.datapath import compiler, pins, syscall
from vxlane.datapath.abi import ABI
from vxlane.datapath.bpffs import ensure_bpffs
from vxlane.datapath.source import flatten
from vxlane.errors import ConfigError, KernelError
from vxlane.util import files
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)

_NO_PROPAGATION = (
    "in a container each restart compiles again, unless the state directory is mounted with"
    " propagation Bidirectional"
)


class Strictness(IntEnum):
    """What becomes of packets that fail an identity check."""

    PASS = 0
    DROP = 1


@dataclass(frozen=True, slots=True)
class Constants:
    """Compiled into the programs; the sizes count map entries."""

    vni: int = 1
    port: int = 8472
    strict: Strictness = Strictness.PASS
    max_peers: int = 16384
    max_pods: int = 1024
    max_flows: int = 262144
    decap_l4_udp: bool = False
    """bpf_skb_adjust_room() takes BPF_F_ADJ_ROOM_DECAP_L4_UDP, so UDP super-packets are popped."""
    peer_takes_as_host: bool = False
    """bpf_redirect_peer() makes PACKET_HOST of what was for another MAC."""

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
    directory = pin_directory(state)
    ensure_bpffs(state / "bpf")
    directory.mkdir(mode=0o700, exist_ok=True)
    note = _note_path(state)
    digest, pinned = _digest(constants), pins.read(directory)
    known = _read_note(note)
    if known and known["pins"] == pinned and known["digest"] == digest:
        return LoadReport(compiled=False, headers=known["headers"])
    if known and not pinned:
        log.warning("what the last agent pinned is gone; %s", _NO_PROPAGATION)
    if (known and known["pins"] != pinned) or not _fits(directory, constants):
        pins.remove(directory)
    # From here on until it is written again nothing vouches for what is pinned. One that can't be
    # removed names objects that are there no more.
    with contextlib.suppress(OSError):
        note.unlink()
    log.info("compile the programs: this takes a second, and 120 MB of memory meanwhile")
    request = {"pins": str(directory), "defines": constants.defines()}
    headers = compiler.run(request, state / "compile.log")["headers"]
    made = {"digest": digest, "headers": headers, "pins": pins.read(directory)}
    _write_note(note, {**made, "defines": constants.defines()})
    return LoadReport(compiled=True, headers=headers)


def loaded_defines(state: Path) -> dict[str, int]:
    """What the pinned programs were compiled with; empty where nothing (readable) is noted."""
    known: dict[str, int] = _read_note(_note_path(state)).get("defines", {})
    return known


def _note_path(state: Path) -> Path:
    return state / f"programs-{ABI}.json"


def _fits(directory: Path, constants: Constants) -> bool:
    """Whether the maps that are pinned have the sizes asked for.

    A map that is pinned stays as it is, whatever the programs are compiled with.
    """
    for name in ("peers", "pods", "flows"):
        try:
            descriptor = syscall.obj_get(directory / name)
        except FileNotFoundError:
            continue
        except KernelError:
            return False
        try:
            if syscall.map_shape(descriptor).max_entries != getattr(constants, f"max_{name}"):
                return False
        except KernelError:
            return False
        finally:
            os.close(descriptor)
    return True


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


def _read_note(path: Path) -> dict[str, Any]:
    """What was pinned, and of what it was made; empty where nothing (readable) is noted."""
    try:
        note = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    is_whole = isinstance(note, dict) and {"digest", "headers", "pins"} <= note.keys()
    return note if is_whole else {}


def _write_note(path: Path, note: dict[str, Any]) -> None:
    """Without it the next agent compiles again, so a full disk is no reason to fail."""
    try:
        files.replace(path, json.dumps(note))
    except OSError as error:
        log.warning("%s: %s; the next agent will compile again", path, error.strerror)
