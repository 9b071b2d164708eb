# SPDX-License-Identifier: Apache-2.0
"""The CNI plugin with an interpreter of its own beside it, for nodes without Python and shell.

The image brings the interpreter in this package's folder `interpreter` (deploy/README.md).
`vxlane.runtime.interpreter` says how a node has it. Imports that and `executable`, for the plugin's
modules.
"""

from __future__ import annotations

from pathlib import Path

from vxlane.install import executable
from vxlane.runtime import interpreter

BROUGHT = Path(__file__).with_name("interpreter")
"""What deploy/interpreter makes, and the program `launcher`."""
_LAUNCHER = "launcher"


def install(program: Path) -> list[str]:
    """Put plugin and interpreter there; a line for each change."""
    return interpreter.put(program, (BROUGHT / _LAUNCHER).read_bytes(), _contents())


def _contents() -> interpreter.Contents:
    """What a version consists of."""
    brought = interpreter.read(BROUGHT)
    del brought[_LAUNCHER]
    return {
        **brought,
        "start": (0o644, executable.START.encode()),
        "plugin": (0o644, b"\0" + executable.modules()),
    }
