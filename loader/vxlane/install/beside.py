# SPDX-License-Identifier: Apache-2.0
"""The CNI plugin with an interpreter of its own beside it, for nodes without Python and shell.

The image brings the interpreter in this package's folder `interpreter` (deploy/README.md). A node
gets

    <bin dir>/vxlane            a program that starts it (deploy/launcher.c)
    <bin dir>/.vxlane/current   -> a directory named by the digest of all that is in it

The program reads the link once, so each call finds one whole version. The version before it stays
for the calls that have begun. Imports `executable`, for the plugin's modules, and files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vxlane.install import executable
from vxlane.util import files

BROUGHT = Path(__file__).with_name("interpreter")
"""What deploy/interpreter makes, and the program `launcher`."""
_VERSIONS = ".vxlane"
_CURRENT = "current"
_LAUNCHER = "launcher"


def install(program: Path) -> list[str]:
    """Put plugin and interpreter there; a line for each change."""
    versions = program.with_name(_VERSIONS)
    contents = _contents()
    name = _digest(iter(contents.items()))
    version, link = versions / name, versions / _CURRENT
    changes = []
    if not version.is_dir() or _digest(_read(version)) != name:
        _write(contents, version)
        changes.append(f"wrote {version}")
    before = _target(link)
    if before != name:
        fresh = versions / f".{_CURRENT}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(name)
        fresh.replace(link)
    launcher = (BROUGHT / _LAUNCHER).read_bytes()
    if files.settle(program, launcher, mode=0o755):
        changes.append(f"wrote {program}")
    for other in versions.iterdir():
        if other.name not in {name, before, _CURRENT}:
            shutil.rmtree(other)
    return changes


def remove(program: Path) -> list[str]:
    """Take the interpreter away; a line if there was one."""
    versions = program.with_name(_VERSIONS)
    if not versions.is_dir():
        return []
    shutil.rmtree(versions)
    return [f"removed {versions}"]


def _contents() -> dict[str, tuple[int, bytes]]:
    """What a version consists of: names with slashes -> mode, content."""
    brought = {name: file for name, file in _read(BROUGHT) if name != _LAUNCHER}
    return {
        **brought,
        "start": (0o644, executable.START.encode()),
        "plugin": (0o644, b"\0" + executable.modules()),
    }


def _read(directory: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    for file in directory.rglob("*"):
        if file.is_file():
            mode = 0o755 if os.access(file, os.X_OK) else 0o644
            yield str(file.relative_to(directory)), (mode, file.read_bytes())


def _digest(contents: Iterator[tuple[str, tuple[int, bytes]]]) -> str:
    whole = hashlib.sha256()
    for name, (mode, content) in sorted(contents):
        whole.update(f"{name} {mode:o} {len(content)}\n".encode())
        whole.update(content)
    return whole.hexdigest()[:16]


def _write(contents: dict[str, tuple[int, bytes]], version: Path) -> None:
    """All or nothing, and on disk before it has its name."""
    fresh = version.with_name(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    for name, (mode, content) in contents.items():
        file = fresh / name
        file.parent.mkdir(parents=True, exist_ok=True)
        files.replace_durably(file, content, mode=mode)
    if version.is_dir():  # It is not what its name says.
        version.rename(version.with_name(".old"))
    fresh.rename(version)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 (a name, not a path)
    except OSError:
        return ""
