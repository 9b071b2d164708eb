# SPDX-License-Identifier: Apache-2.0
"""Compile and load, in a process of its own: `python -I -m vxlane.datapath.compile`.

The only module that imports bcc. bcc brings LLVM, 120 MB that have no place in a long-lived agent,
so this reads a request (JSON on standard input), pins what it made or hands it over, and ends.
Compiler and verifier write to standard error, which the parent turns into a CompileError.

Isolated (-I), because root must not import a stranger's bcc.py from the current directory.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from bcc import BPF

from vxlane.datapath import syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.compiler import TRACER_MAPS
from vxlane.datapath.source import TRACER_FILES, WARNINGS, flatten, kernel_headers

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Request: {"pins": directory, "parent": pid, "defines": {name: integer}}, and for the tracer
    "channel", a Unix socket's descriptor: its program and maps go there, and nothing is pinned.

    Answer: {"headers": text}.
    """
    request = json.load(sys.stdin)
    _end_with(request["parent"])
    _go_first()
    load = _hand_over_tracer if "channel" in request else _pin_programs
    json.dump({"headers": load(request)}, sys.stdout)


def _pin_programs(request: dict[str, Any]) -> str:
    pins = Path(request["pins"])
    syscall.ensure_devmap(pins / "veths", request["defines"]["MAX_PODS"])
    module, kind = _compile(request, flatten())
    for program in Program:
        function = module.load_func(program.label, BPF.SCHED_CLS)
        syscall.obj_replace(function.fd, pins / program.label)
    return kind


def _hand_over_tracer(request: dict[str, Any]) -> str:
    """Unpinned objects go with the last process that has them open, however that ends."""
    # It needs a part of each header only, and the headers are written out in its text.
    module, kind = _compile(request, flatten(TRACER_FILES), "-Wno-unused-function")
    program = module.load_func("trace", BPF.SCHED_CLS)
    descriptors = [program.fd, *(module[name].map_fd for name in TRACER_MAPS)]
    with socket.socket(fileno=request["channel"]) as channel:
        socket.send_fds(channel, [b"\0"], descriptors)
    return kind


def _compile(request: dict[str, Any], text: str, *flags: str) -> tuple[BPF, str]:
    """The compiled text, and which kernel headers it was compiled with."""
    defines = [f"-D{name}={value}" for name, value in request["defines"].items()]
    with tempfile.TemporaryDirectory(prefix="vxlane-headers-") as scratch:
        headers = kernel_headers(Path(scratch))
        if headers.path:
            os.environ["BCC_KERNEL_SOURCE"] = str(headers.path)
        placed = f'#define PIN_DIR "{request["pins"]}"\n{text}'
        module = BPF(text=placed, cflags=[*defines, *WARNINGS, *flags, *headers.flags])
    return module, headers.kind


def _end_with(parent: int) -> None:
    """End when the agent ends: its successor compiles too, perhaps with other options.

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
