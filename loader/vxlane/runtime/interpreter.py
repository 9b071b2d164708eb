# SPDX-License-Identifier: Apache-2.0
"""The interpreter that lies beside the CNI plugin's executable where the image brought one.

    <bin dir>/vxlane            a program that starts it (deploy/launcher.c)
    <bin dir>/.vxlane/current   -> a directory named by the digest of all that is in it

The program reads the link once, so each call finds one whole version. The version before it stays
for the calls that have begun. Imports files only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from vxlane.util import files

Contents = dict[str, tuple[int, bytes]]
"""Files of a directory and those below: names with slashes -> mode, content."""
_MODE = 0o755
_VERSIONS = ".vxlane"
_CURRENT = "current"


def put(program: Path, launcher: bytes, contents: Contents) -> list[str]:
    """Have `program` start a version of those contents; a line for each change."""
    versions = program.with_name(_VERSIONS)
    name = _digest(contents)
    version, link = versions / name, versions / _CURRENT
    changes = []
    if not version.is_dir() or _digest(read(version)) != name:
        _write(contents, version)
        changes.append(f"wrote {version}")
    before = _target(link)
    if before != name:
        fresh = versions / f".{_CURRENT}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(name)
        fresh.replace(link)
    if files.write_if_changed(program, launcher, mode=_MODE):
        changes.append(f"wrote {program}")
    for other in versions.iterdir():
        if other.name not in {name, before, _CURRENT}:
            shutil.rmtree(other)
    return changes


def copy(program: Path, target: Path) -> list[str]:
    """Put the executable at another place, with the interpreter if one is beside it."""
    content = program.read_bytes()
    version = program.with_name(_VERSIONS) / _CURRENT
    if version.is_dir():
        return put(target, content, read(version.resolve()))
    return [f"wrote {target}"] if files.write_if_changed(target, content, mode=_MODE) else []


def remove(program: Path) -> list[str]:
    """Take the interpreter away; a line if there was one."""
    versions = program.with_name(_VERSIONS)
    if not versions.is_dir():
        return []
    shutil.rmtree(versions)
    return [f"removed {versions}"]


def read(directory: Path) -> Contents:
    """What is in a directory."""
    contents: Contents = {}
    for file in directory.rglob("*"):
        if file.is_file():
            mode = 0o755 if os.access(file, os.X_OK) else 0o644
            contents[str(file.relative_to(directory))] = (mode, file.read_bytes())
    return contents


def _digest(contents: Contents) -> str:
    whole = hashlib.sha256()
    for name, (mode, content) in sorted(contents.items()):
        whole.update(f"{name} {mode:o} {len(content)}\n".encode())
        whole.update(content)
    return whole.hexdigest()[:16]


def _write(contents: Contents, version: Path) -> None:
    """All or nothing, and on disk before it has its name."""
    fresh = version.with_name(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        for name, (mode, content) in contents.items():
            file = fresh / name
            file.parent.mkdir(parents=True, exist_ok=True)
            files.replace_durably(file, content, mode=mode)
    except BaseException:
        # A full disk stays full with half a version on it.
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if version.is_dir():  # It is not what its name says.
        version.rename(version.with_name(".old"))
    fresh.rename(version)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 (a name, not a path)
    except OSError:
        return ""
