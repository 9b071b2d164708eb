# SPDX-License-Identifier: Apache-2.0
"""Compile, in a process of its own: `python -I -m vxlane.datapath.compile`.

bcc brings LLVM, 120 MB that have no place in a long-lived agent, so this reads a request (JSON on
standard input), answers what `compiled` describes, and ends. The compiler writes to standard error,
which the parent turns into a CompileError.

bcc makes every map that it compiles a use of. They are small here and go with this process; `load`
makes the real ones.

Isolated (-I), because root must not import a stranger's bcc.py from the current directory.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from bcc import BPF, lib

from vxlane.datapath.compiled import RING_BYTES, Compiled, Table, unlinked
from vxlane.datapath.source import WARNINGS, KernelHeaders, Part, flatten, kernel_headers

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_DEVMAP, _DEVMAP_HASH, _RINGBUF = 14, 25, 27  # enum bpf_map_type
_SIZES = {1009: "MAX_PEERS", 1013: "MAX_PODS", 1019: "MAX_FLOWS", 1021: "MAX_TRANSLATIONS"}
"""What is compiled as the sizes that a node may have its own of: primes, which no map else has as
its size, so that they are told by them."""


def main() -> None:
    """Request: {"part": a Part's name, "parent": pid, "is_portable" and "scratch": of
    `kernel_headers`}.

    Answer: a Compiled's document.
    """
    request = json.load(sys.stdin)
    _end_with(request["parent"])
    _go_first()
    headers = kernel_headers(Path(request["scratch"]), is_portable=request["is_portable"])
    made = _compile(Part[request["part"]], headers)
    json.dump(made.document(), sys.stdout)


def _compile(part: Part, headers: KernelHeaders) -> Compiled:
    defines = [f"-D{name}={size}" for size, name in _SIZES.items()]
    # The tracer needs a part of each header only, and they are written out in its text.
    unused = ["-Wno-unused-function"] if part is Part.TRACER else []
    if headers.path:
        os.environ["BCC_KERNEL_SOURCE"] = str(headers.path)
    flags = [*defines, "-DRING_PAGES=1", *WARNINGS, *unused, *headers.flags]
    program = BPF(text=flatten(part), cflags=flags)
    module = program.module
    tables = _tables(module)
    descriptors = {lib.bpf_table_fd(module, name): name for name in tables}
    maps = {name.decode(): table for name, table in sorted(tables.items())}
    place_of = {number: list(maps).index(name.decode()) for number, name in descriptors.items()}
    programs = {name: unlinked(_code(module, name), place_of) for name in part.functions}
    return Compiled(headers.kind, maps, programs)


def _tables(module: int) -> dict[bytes, Table]:
    """The maps of the compiled text, by bcc's C interface: that of Python tells no flags."""
    lib.bpf_num_tables.restype = ctypes.c_size_t
    lib.bpf_table_name.restype = ctypes.c_char_p
    for tell in (lib.bpf_table_key_size_id, lib.bpf_table_leaf_size_id):
        tell.restype = ctypes.c_size_t
    handle = ctypes.c_void_p(module)
    found = {}
    for number in map(ctypes.c_size_t, range(lib.bpf_num_tables(handle))):
        kind = lib.bpf_table_type_id(module, number)
        entries = lib.bpf_table_max_entries_id(module, number)
        found[lib.bpf_table_name(handle, number)] = Table(
            # bcc has no word for the one, and nothing here uses the other.
            kind=_DEVMAP_HASH if kind == _DEVMAP else kind,
            key=lib.bpf_table_key_size_id(handle, number),
            value=lib.bpf_table_leaf_size_id(handle, number),
            entries=RING_BYTES if kind == _RINGBUF else _SIZES.get(entries, entries),
            flags=lib.bpf_table_flags_id(module, number),
        )
    return found


def _code(module: int, name: str) -> bytes:
    return ctypes.string_at(
        lib.bpf_function_start(module, name.encode()), lib.bpf_function_size(module, name.encode())
    )


def _end_with(parent: int) -> None:
    """End when the agent ends: its successor compiles too.

    The kernel sends the signal when the thread that forked this process ends. It says nothing of a
    parent that was gone before.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the agent that wanted this has ended")


def _go_first() -> None:
    """Let a kernel without memory end this process, and not the agent."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        pass  # /proc may be read-only; then the largest goes first, which is this too.


if __name__ == "__main__":
    main()
