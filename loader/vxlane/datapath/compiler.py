# SPDX-License-Identifier: Apache-2.0
"""Runs the process that compiles, and says in a sentence what went wrong there.

The whole output of compiler and verifier goes to a file that the sentence names. Imports errors,
files and process; bcc is the child's alone (`compile`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from vxlane.errors import CompileError
from vxlane.util import files
from vxlane.util.capabilities import missing
from vxlane.util.release import OLDEST, is_supported

TIMEOUT = 300.0
"""Seconds; a slow machine under load takes ten, and an emulated processor took 67."""
_LOCATED = re.compile(r"^bpf/\w+\.[ch]:\d+:\d+: (?:fatal )?error: .*$", re.MULTILINE)
_TOO_OLD = re.compile(r"^bpf/maps\.h:.* too many arguments provided to function-like", re.MULTILINE)
"""Of bcc 0.18, Ubuntu 22.04's: its BPF_TABLE_PINNED() takes no flags, and makes no map."""
_TELLING = re.compile(r"HINT: |could not open bpf map")
_END_OF_VERIFIER = "processed "
"""It begins the verifier's last line: "processed 13 insns". The line before it is the refusal."""
_NO_MEMORY = ("out of memory", "bad_alloc", "MemoryError", "Cannot allocate memory")
_CAPABILITIES = frozenset({"SYS_ADMIN"})
"""What bcc needs: its maps are pinned by paths, and CAP_BPF and CAP_PERFMON don't reach them."""


TRACER_MAPS = ("filter", "lost", "events")
"""What comes with the tracer's program, in this order."""


def tracer(request: Mapping[str, object], log_file: Path) -> list[int]:
    """Descriptors of the tracer's program and of `TRACER_MAPS`; CompileError as `run`."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        run({**request, "channel": theirs.fileno()}, log_file, inherited=theirs.fileno())
        return socket.recv_fds(ours, 1, 1 + len(TRACER_MAPS))[1]


def run(
    request: Mapping[str, object], log_file: Path, *, inherited: int | None = None
) -> dict[str, str]:
    """The child's answer; CompileError with its first error, and the rest in `log_file`.

    `inherited`: a descriptor that the child shall have too.
    """
    command = [sys.executable, "-I", "-m", "vxlane.datapath.compile"]
    try:
        child = subprocess.run(
            command,
            input=json.dumps({**request, "parent": os.getpid()}),
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
            timeout=TIMEOUT,
            pass_fds=() if inherited is None else (inherited,),
        )
    except subprocess.TimeoutExpired:
        raise CompileError(f"the compiler did not end within {TIMEOUT:g} s") from None
    if child.returncode == 0:
        answer: dict[str, str] = json.loads(child.stdout.splitlines()[-1])
        return answer
    where = ""
    with contextlib.suppress(OSError):
        files.replace(log_file, child.stdout + child.stderr, mode=0o600)
        where = f"; all of its output is in {log_file}"
    raise CompileError(f"{sentence(child.returncode, child.stderr)}{where}")


def sentence(status: int, output: str) -> str:
    """What went wrong, by the child's exit status and standard error."""
    if status == -signal.SIGKILL or any(words in output for words in _NO_MEMORY):
        return "the compiler was killed: it needs 120 MB of memory; raise the limit"
    if "No module named 'bcc'" in output:
        return "bcc is missing; install the package python3-bpfcc (PyPI's bcc is another project)"
    if _TOO_OLD.search(output):
        return "this bcc is too old: it can't make pinned maps; 0.26 is the oldest that was tried"
    if located := _LOCATED.search(output):
        return located[0]
    release = os.uname().release
    if not is_supported(release):
        return f"the programs need Linux {OLDEST} or later, this is {release}"
    said = "the programs did not load: " + " | ".join(_reasons(output) or ["no word why"])
    if status < 0:
        said += f" (the compiler was ended by {signal.Signals(-status).name})"
    lacks = missing(_CAPABILITIES)
    return f"{said}; the agent lacks {lacks}" if lacks else said


def _reasons(output: str) -> list[str]:
    """What bcc and the verifier gave as reasons; else their last words, else Python's."""
    said, _, trace = output.partition("Traceback (most recent call last):")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    refusals = [line for line, after in pairwise(lines) if after.startswith(_END_OF_VERIFIER)]
    reasons = refusals + [line for line in lines if _TELLING.match(line)]
    return (
        list(dict.fromkeys(reasons))
        or lines[-5:]
        or [line.strip() for line in trace.splitlines() if line.strip()][-1:]
    )
