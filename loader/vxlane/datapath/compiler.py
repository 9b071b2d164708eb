# SPDX-License-Identifier: Apache-2.0
"""Gets compiled programs: from the package, or else from a child process that compiles them.

A failure is explained in a sentence, which names the file with the compiler's whole output. Only
the child (`compile`) imports bcc.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from vxlane.datapath import precompiled
from vxlane.datapath.compiled import Compiled
from vxlane.datapath.reasons import kept, lacking, too_old
from vxlane.datapath.source import Part
from vxlane.errors import CompileError
from vxlane.util import scratch

log = logging.getLogger(__name__)

TIMEOUT = 300.0
"""Seconds. A slow machine under load takes ten, and an emulated processor took 67."""
SCRATCH = "headers"
"""The kind of directories for kernel headers."""
_LOCATED = re.compile(r"^bpf/\w+\.[ch]:\d+:\d+: (?:fatal )?error: .*$", re.MULTILINE)
_TELLING = re.compile(r"HINT: |could not ")
_INSTALL_BCC = "install the package python3-bpfcc (PyPI's bcc is another project)"
_NO_MEMORY = ("out of memory", "bad_alloc", "MemoryError", "Cannot allocate memory")
_CAPABILITIES = frozenset({"BPF", "NET_ADMIN"})
"""What bcc needs: it makes each map that the programs use, and a devmap needs NET_ADMIN."""


def obtain(part: Part, log_file: Path) -> Compiled:
    """The part from the package, or else compiled now. CompileError: neither is possible."""
    return precompiled.find(part) or run(part, log_file)


def run(part: Part, log_file: Path, *, is_portable: bool = False) -> Compiled:
    """Compile in a child process. CompileError: it failed; `log_file` has the whole output.

    `is_portable`: compile for other nodes, whose kernels and headers are not known here.
    """
    log.info("compile the programs: this takes a second, and 120 MB of memory meanwhile")
    request = {"part": part.name, "parent": os.getpid(), "is_portable": is_portable}
    try:
        child = _child(request)
    except subprocess.TimeoutExpired:
        raise CompileError(f"the compiler did not end within {TIMEOUT:g} s") from None
    if child.returncode == 0:
        return Compiled.of(json.loads(child.stdout.splitlines()[-1]))
    where = kept(log_file, child.stdout + child.stderr, "its output is")
    raise CompileError(f"{sentence(child.returncode, child.stderr)}{where}")


def _child(request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Its scratch directory is this process's: the child may be killed, and could not remove it."""
    with scratch.directory(SCRATCH) as made:
        return subprocess.run(
            [sys.executable, "-I", "-m", "vxlane.datapath.compile"],
            input=json.dumps(request | {"scratch": str(made)}),
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
            timeout=TIMEOUT,
        )


def sentence(status: int, output: str) -> str:
    """A sentence about what went wrong, from the child's exit status and standard error."""
    if status == -signal.SIGKILL or any(words in output for words in _NO_MEMORY):
        return "the compiler was killed: it needs 120 MB of memory; raise the limit"
    if "No module named 'bcc'" in output:
        return f"{_without_bcc()}, and bcc is missing; {_INSTALL_BCC}"
    if located := _LOCATED.search(output):
        return located[0]
    if old := too_old():
        return old
    said = "the programs did not compile: " + " | ".join(_reasons(output) or ["no word why"])
    if status < 0:
        said += f" (the compiler was ended by {signal.Signals(-status).name})"
    lacks = lacking(_CAPABILITIES)
    return f"{said}; {lacks}" if lacks else said


def _without_bcc() -> str:
    if precompiled.FILE.exists():
        return f"the programs in {precompiled.FILE} are of another version's sources"
    return "no compiled programs came with this vxlane"


def _reasons(output: str) -> list[str]:
    """The reasons that bcc gave, else its last lines, else Python's last line."""
    said, _, trace = output.partition("Traceback (most recent call last):")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reasons = [line for line in lines if _TELLING.match(line)]
    if reasons or lines:
        return reasons or lines[-5:]
    return [line.strip() for line in trace.splitlines() if line.strip()][-1:]
