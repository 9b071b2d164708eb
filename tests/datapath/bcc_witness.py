# SPDX-License-Identifier: Apache-2.0
"""What bcc makes of every map's key and leaf, as JSON; run by test_contract.py in a process apart.

Argument: a directory on a bpffs for the pins. Answer: {map: {"key"|"leaf": {"size": bytes,
"members": {name: offset}}}}; of a per-CPU map the leaf of one CPU.
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

from vxlane.datapath.programs import Constants
from vxlane.datapath.source import flatten, kernel_headers


def layout(kind: Any) -> dict[str, Any]:
    """Size and offsets of a ctypes type; a plain integer has no members."""
    kind = getattr(kind, "_type_", kind) if issubclass(kind, ctypes.Array) else kind
    members = [name for name, _ in getattr(kind, "_fields_", ())]
    return {
        "size": ctypes.sizeof(kind),
        "members": {name: getattr(kind, name).offset for name in members},
    }


def main() -> None:
    """Compile the real text."""
    defines = [f"-D{name}={value}" for name, value in Constants().defines().items()]
    with tempfile.TemporaryDirectory() as scratch:
        headers = kernel_headers(Path(scratch))
        if headers.path:
            os.environ["BCC_KERNEL_SOURCE"] = str(headers.path)
        module = BPF(
            text=f'#define PIN_DIR "{sys.argv[1]}"\n{flatten()}', cflags=[*defines, *headers.flags]
        )
    # The kernel itself may put progs.debug and maps.debug on a bpffs.
    names = [pin.name for pin in Path(sys.argv[1]).iterdir() if not pin.suffix]
    tables = {name: module[name] for name in names}
    json.dump(
        {name: {"key": layout(t.Key), "leaf": layout(t.Leaf)} for name, t in tables.items()},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
