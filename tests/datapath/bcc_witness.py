# SPDX-License-Identifier: Apache-2.0
"""What bcc makes of the programs by itself, as JSON; run in a process apart.

It makes the maps, and loads the programs with their numbers compiled in. Argument: the numbers that
are not 0, as {"NODE_...": number}. Answer: {"tables": {map: {"key"|"leaf": {"size": bytes,
"members": {name: offset}}}}, "tags": {program: the kernel's digest of its instructions}}. Of a
per-CPU map it is the leaf of one CPU.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bcc import BPF

from vxlane.datapath import syscall
from vxlane.datapath.abi import HEADER
from vxlane.datapath.records import SHAPES
from vxlane.datapath.source import Part, flatten, kernel_headers

SIZES = {"MAX_PEERS": 64, "MAX_PODS": 64, "MAX_FLOWS": 64, "MAX_TRANSLATIONS": 64}
OF_NODE = "bpf_pseudo_fd(MARK_OF_NODE, constant)"


def layout(kind: Any) -> dict[str, Any]:
    """Size and offsets of a ctypes type; a plain integer has no members."""
    kind = getattr(kind, "_type_", kind) if issubclass(kind, ctypes.Array) else kind
    members = [name for name, _ in getattr(kind, "_fields_", ())]
    return {
        "size": ctypes.sizeof(kind),
        "members": {name: getattr(kind, name).offset for name in members},
    }


def tag(program: int) -> str:
    """The kernel's, in which descriptors of maps don't count (struct bpf_prog_info)."""
    return syscall.object_info(program, 16)[8:].hex()


def main() -> None:
    """Compile and load the real text."""
    given = {**dict.fromkeys(HEADER.enums["node"], 0), **json.loads(sys.argv[1])}
    numbers = {f"NUMBER_{name}": value for name, value in given.items()}
    defines = [f"-D{name}={value}" for name, value in {**SIZES, **numbers}.items()]
    text = flatten()
    assert OF_NODE in text
    text = text.replace(OF_NODE, "bpf_pseudo_fd(0, NUMBER_##constant)")
    with tempfile.TemporaryDirectory() as scratch:
        headers = kernel_headers(Path(scratch))
        if headers.path:
            os.environ["BCC_KERNEL_SOURCE"] = str(headers.path)
        module = BPF(text=text, cflags=[*defines, *headers.flags])
    tables = {name: module[name] for name in SHAPES}
    answer = {
        "tables": {n: {"key": layout(t.Key), "leaf": layout(t.Leaf)} for n, t in tables.items()},
        "tags": {
            name: tag(module.load_func(name, BPF.SCHED_CLS).fd) for name in Part.PROGRAMS.functions
        },
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
