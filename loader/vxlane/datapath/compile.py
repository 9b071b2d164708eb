# SPDX-License-Identifier: Apache-2.0
"""Compile, load and pin, in a process of its own: `python -m vxlane.datapath.compile`.

The only module that imports bcc. bcc brings LLVM, 120 MB that have no place in a long-lived agent,
so this reads a request (JSON on standard input), pins what it made, and ends. Compiler and
verifier write to standard error, which the parent turns into a CompileError.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from bcc import BPF

from vxlane.datapath import syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.source import flatten, kernel_headers

_LICENCE = "#define BPF_LICENSE Dual BSD/GPL\n"
"""Of bpf/, in the words of the kernel's include/linux/license.h; bcc would say GPL."""
_WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-attributes"]


def main() -> None:
    """Request: {"pins": directory, "defines": {name: integer}}; answer: {"headers": text}."""
    request = json.load(sys.stdin)
    pins = Path(request["pins"])
    defines = [f"-D{name}={value}" for name, value in request["defines"].items()]
    with tempfile.TemporaryDirectory(prefix="vxlane-headers-") as scratch:
        headers = kernel_headers(Path(scratch))
        if headers.path:
            os.environ["BCC_KERNEL_SOURCE"] = str(headers.path)
        syscall.ensure_devmap(pins / "veths", request["defines"]["MAX_PODS"])
        text = f'{_LICENCE}#define PIN_DIR "{pins}"\n{flatten()}'
        module = BPF(text=text, cflags=[*defines, *_WARNINGS, *headers.flags])
    for program in Program:
        function = module.load_func(program.label, BPF.SCHED_CLS)
        syscall.obj_replace(function.fd, pins / program.label)
    json.dump({"headers": headers.kind}, sys.stdout)


if __name__ == "__main__":
    main()
