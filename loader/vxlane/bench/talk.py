# SPDX-License-Identifier: Apache-2.0
"""The program `talk` (talk.c): compiled when a run begins, and called.

Only gcc or clang is needed for that, with a C library's headers.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib import resources
from pathlib import Path

from vxlane.errors import ToolError

_COMPILERS = ("cc", "gcc", "clang")


def build(directory: Path) -> Path:
    """Compile it into `directory`. ToolError: there is no compiler, or it refuses.

    It is linked statically where that is possible, since it may have to run on a host with an older
    C library.
    """
    compiler = find_compiler()
    program = directory / "talk"
    with resources.as_file(resources.files("vxlane.bench").joinpath("talk.c")) as source:
        command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)]
        for linked in (["-static"], []):
            done = subprocess.run([*command, *linked], capture_output=True, text=True, check=False)
            if not done.returncode:
                return program
    raise ToolError(f"{compiler} does not compile talk.c: {done.stderr.strip()[-400:]}")


def find_compiler() -> str:
    """The compiler that there is. ToolError: there is none."""
    for found in map(shutil.which, _COMPILERS):
        if found:
            return found
    raise ToolError("the bench's traffic is a C program; install gcc or clang, with libc6-dev")


def parse(printed: str) -> tuple[int, ...]:
    """The numbers that a client prints. ToolError: it prints something else."""
    try:
        return tuple(int(word) for word in printed.split())
    except ValueError:
        raise ToolError(f"talk printed {printed.strip()[:100]!r} instead of numbers") from None
