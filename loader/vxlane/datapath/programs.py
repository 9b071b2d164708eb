# SPDX-License-Identifier: Apache-2.0
"""Make sure that the programs of this build are loaded and pinned.

Owns the note beside the pins that says which objects they are and what they were made of, so that
an agent restarting with the same build and settings loads nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from socket import htonl, htons
from typing import Any

from vxlane.datapath import compiler, load, pins, source, syscall
from vxlane.datapath.abi import ABI, HEADER
from vxlane.datapath.bpffs import ensure_bpffs
from vxlane.datapath.load import Terms
from vxlane.datapath.source import Part
from vxlane.util import files
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)

_NO_PROPAGATION = (
    "in a container each restart loads them again, unless the state directory is mounted with"
    " propagation Bidirectional"
)


_NODE_NUMBERS = [
    name.removeprefix("NODE_") for name in HEADER.enums["node"] if name != "NODE_COUNT"
]


class Strictness(IntEnum):
    """What becomes of packets that fail an identity check."""

    PASS = 0
    DROP = 1


@dataclass(frozen=True, slots=True)
class Constants:
    """What a node's programs and maps are loaded with; the sizes count map entries."""

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

    def terms(self) -> Terms:
        """As the loader takes them; numbers in network byte order as the header has them."""
        number_of = {
            "VNI": htonl(self.vni << 8),
            "PORT": htons(self.port),
            "STRICT": self.strict,
            "DECAP_L4_UDP": self.decap_l4_udp,
            "PEER_TAKES_AS_HOST": self.peer_takes_as_host,
        }
        return Terms(
            numbers=[int(number_of[name]) for name in _NODE_NUMBERS],
            sizes={
                # A place more than there are counters: see Maps.put_peer().
                "MAX_PEERS": self.max_peers + 1,
                "MAX_PODS": self.max_pods,
                "MAX_FLOWS": self.max_flows,
                # Most flows are not translated at all.
                "MAX_TRANSLATIONS": self.max_flows // 4 + 1,
            },
        )


@dataclass(frozen=True, slots=True)
class LoadReport:
    """`loaded`: were programs loaded now; `headers`: which kernel headers they were made with."""

    loaded: bool
    headers: str


def pin_directory(state: Path) -> Path:
    """The pins of this contract version; another version never reads them."""
    return state / "bpf" / str(ABI)


def ensure_loaded(state: Path, constants: Constants) -> LoadReport:
    """Mount the bpffs, load and pin unless this very build is pinned already.

    Raises CompileError with the compiler's first error, by real file and line, before anything is
    changed. The programs that stand attached go on until Hooks.refresh() replaces them.
    """
    directory = pin_directory(state)
    ensure_bpffs(state / "bpf")
    directory.mkdir(mode=0o700, exist_ok=True)
    note = _note_path(state)
    digest, pinned = _digest(constants), pins.read(directory)
    known = _read_note(note)
    if known and known["pins"] == pinned and known["digest"] == digest:
        return LoadReport(loaded=False, headers=known["headers"])
    if known and not pinned:
        log.warning("what the last agent pinned is gone; %s", _NO_PROPAGATION)
    compiled = compiler.obtain(Part.PROGRAMS, state / "compile.log")
    # From here on until it is written again nothing vouches for what is pinned. One that can't be
    # removed names objects that are there no more.
    with contextlib.suppress(OSError):
        note.unlink()
    terms = constants.terms()
    # A map that is pinned stays as it is, whatever size is asked for.
    if (known and known["pins"] != pinned) or not load.fits(compiled, directory, terms):
        pins.remove(directory)
    load.pin(compiled, directory, terms, state / "compile.log")
    made = {"digest": digest, "headers": compiled.headers, "pins": pins.read(directory)}
    _write_note(note, {**made, "constants": asdict(constants)})
    return LoadReport(loaded=True, headers=compiled.headers)


def loaded_constants(state: Path) -> Constants | None:
    """What the pinned programs were loaded with; None where nothing (readable) is noted."""
    try:
        return Constants(**_read_note(_note_path(state))["constants"])
    except (KeyError, TypeError):
        return None


def _note_path(state: Path) -> Path:
    return state / f"programs-{ABI}.json"


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
    made_of = json.dumps([source.digest([Part.PROGRAMS]), asdict(constants), os.uname().release])
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
    """Without it the next agent loads again, so a full disk is no reason to fail."""
    try:
        files.replace(path, json.dumps(note))
    except OSError as error:
        log.warning("%s: %s; the next agent will load them again", path, error.strerror)
