# SPDX-License-Identifier: Apache-2.0
"""Compile, load and pin, in a process of its own: `python -I -m vxlane.datapath.compile`.

The only module that imports bcc. bcc brings LLVM, 120 MB that have no place in a long-lived agent,
so this reads a request (JSON on standard input), pins what it made, and ends. Compiler and
verifier write to standard error, which the parent turns into a CompileError.

Isolated (-I), because root must not import a stranger's bcc.py from the current directory.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from bcc import BPF

from vxlane.datapath import syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.source import WARNINGS, flatten, kernel_headers

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Request: {"pins": directory, "parent": pid, "defines": {name: integer}}.

    Answer: {"headers": text}.
    """
    request = json.load(sys.stdin)
    _end_with(request["parent"])
    _go_first()
    pins = Path(request["pins"])
    defines = [f"-D{name}={value}" for name, value in request["defines"].items()]
    with tempfile.TemporaryDirectory(prefix="vxlane-headers-") as scratch:
        headers = kernel_headers(Path(scratch))
        if headers.path:
            os.environ["BCC_KERNEL_SOURCE"] = str(headers.path)
        syscall.ensure_devmap(pins / "veths", request["defines"]["MAX_PODS"])
        text = f'#define PIN_DIR "{pins}"\n{flatten()}'
        module = BPF(text=text, cflags=[*defines, *WARNINGS, *headers.flags])
    for program in Program:
        function = module.load_func(program.label, BPF.SCHED_CLS)
        syscall.obj_replace(function.fd, pins / program.label)
    json.dump({"headers": headers.kind}, sys.stdout)


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
