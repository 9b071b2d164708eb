# SPDX-License-Identifier: Apache-2.0
"""Makes maps and loads compiled programs by bpf(2). It needs no compiler.

In the kernel a program has the name of its function. There is no debug information, so the
verifier's log names registers, not lines. Knows descriptors and pins, not what the maps mean.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from vxlane.datapath import syscall
from vxlane.datapath.compiled import RING_BYTES, Compiled, Table, linked
from vxlane.datapath.loose import prog_load
from vxlane.datapath.reasons import kept, lacking, too_old
from vxlane.datapath.syscall import MapShape, _bpf
from vxlane.errors import CompileError, KernelError

_MAP_CREATE = 0
_CAPABILITIES = frozenset({"BPF", "NET_ADMIN", "PERFMON"})
"""CAP_PERFMON: without it the verifier lets no program compare pointers, and slows down its loads
against Spectre (bpf_allow_ptr_leaks(), bpf_bypass_spec_v1() in linux/bpf.h)."""
_LOG = 1 << 22
"""Bytes. The verifier says about 200 of each instruction."""
_OPTIONS = {
    "MAX_PEERS": "--max-peers",
    "MAX_PODS": "--max-pods",
    "MAX_FLOWS": "--max-flows",
    "MAX_TRANSLATIONS": "--max-flows",
    RING_BYTES: "--buffer",
}
"""What a person gives for the sizes that have a name."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is set for a node: `numbers` in the order of NODE_... in bpf/vxlane.h, and `sizes` by
    the names in a Table.
    """

    numbers: Sequence[int]
    sizes: Mapping[str, int]


def fits(compiled: Compiled, directory: Path, terms: Terms) -> bool:
    """Whether every map that is pinned there has the shape and size that it would get now."""
    for name, table in compiled.maps.items():
        wanted = MapShape(table.key, table.value, table.most(terms.sizes))
        try:
            descriptor = syscall.obj_get(directory / name)
        except FileNotFoundError:
            continue
        except KernelError:
            return False
        try:
            if syscall.map_shape(descriptor) != wanted:
                return False
        except KernelError:
            return False
        finally:
            os.close(descriptor)
    return True


def pin(compiled: Compiled, directory: Path, terms: Terms, log_file: Path) -> None:
    """Take over the pinned maps, make the missing ones, and replace the pinned programs.

    CompileError: the verifier refused a program, and no program was replaced.
    """
    with contextlib.ExitStack() as opened:
        maps = []
        for name, table in compiled.maps.items():
            maps.append(_pinned(directory / name, table, terms))
            opened.callback(os.close, maps[-1])
        loaded = {}
        for name, code in compiled.programs.items():
            loaded[name] = _load(name, linked(code, maps, terms.numbers), log_file)
            opened.callback(os.close, loaded[name])
        for name, program in loaded.items():
            syscall.obj_replace(program, directory / name)


def loose(
    compiled: Compiled, names: Sequence[str], terms: Terms, log_file: Path
) -> tuple[int, list[int]]:
    """Load the one program. Returns its descriptor, and those of its maps with these names.

    Nothing is pinned, so the kernel frees everything when the last descriptor is closed.
    """
    maps: dict[str, int] = {}
    try:
        for name, table in compiled.maps.items():
            maps[name] = _make(name, table, terms)
        ((name, code),) = compiled.programs.items()
        program = _load(name, linked(code, list(maps.values()), terms.numbers), log_file)
        return program, [os.dup(maps[name]) for name in names]
    finally:
        for descriptor in maps.values():
            os.close(descriptor)


def _pinned(path: Path, table: Table, terms: Terms) -> int:
    try:
        return syscall.obj_get(path)
    except FileNotFoundError:
        made = _make(path.name, table, terms)
    try:
        syscall.obj_pin(made, path)
    except KernelError:
        os.close(made)
        raise
    return made


def _make(name: str, table: Table, terms: Terms) -> int:
    sizes = table.kind, table.key, table.value, table.most(terms.sizes), table.flags
    attr = struct.pack("=IIIIIII16s", *sizes, 0, 0, name.encode()[:15])
    try:
        with _allowed(f"make the map {name}"):
            return _bpf(_MAP_CREATE, attr)[0]
    except KernelError as error:
        option = _OPTIONS.get(str(table.entries))
        if not option or error.errno not in {errno.E2BIG, errno.ENOMEM}:
            raise
        raise KernelError(error.operation, error.errno, f"give a smaller {option}") from None


def _load(name: str, code: bytes, log_file: Path) -> int:
    """CompileError: the verifier refused it. The message has its last words, the file its log."""
    try:
        return prog_load(code, name)
    except OSError:
        pass  # Once more, with a log: to write one takes longer than all else.
    log = ctypes.create_string_buffer(_LOG)
    try:
        with _allowed(f"load the program {name}"):
            return prog_load(code, name, log)
    except KernelError:
        said = log.value.decode(errors="replace")
        if not said:
            raise
    where = kept(log_file, said, "the verifier's words are")
    if old := too_old():
        raise CompileError(f"{old}{where}")
    lacks = lacking(_CAPABILITIES)
    raise CompileError(
        f"the programs did not load: {name}: {refusal(said)}{f'; {lacks}' if lacks else ''}{where}"
    )


def refusal(said: str) -> str:
    """The verifier's reason in its own words. If it gave up in another way, its last words.

    Its log ends with "processed 13 insns ...". The line before that is the reason.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    refused = [line for line, after in pairwise(lines) if after.startswith("processed ")]
    return " | ".join(refused or lines[-5:])


@contextlib.contextmanager
def _allowed(operation: str) -> Iterator[None]:
    """Turn an OSError in the block into a KernelError that says what is missing: a capability, a
    newer kernel (before 5.11 maps counted against RLIMIT_MEMLOCK), or a permission of the container
    runtime.
    """
    try:
        yield
    except OSError as error:
        # Profiles from before 2023 demand SYS_ADMIN.
        filtered = "a seccomp profile forbids bpf(2)" if error.errno == errno.EPERM else ""
        advice = lacking(_CAPABILITIES) or too_old() or filtered
        raise KernelError(operation, error.errno or 0, advice) from error
