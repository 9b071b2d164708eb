# SPDX-License-Identifier: Apache-2.0
"""Every source file names its licence, and the texts are there."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
OF_ALL = "SPDX-License-Identifier: Apache-2.0"
OF_THE_PROGRAMS = "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"


def sources():
    """Every source file with something in it."""
    code = [
        path
        for room in ("bpf", "loader", "cni", "tests", "deploy", "docs")
        for pattern in ("*.py", "*.c", "*.h", "*.yaml", "*.sh")
        for path in (ROOT / room).rglob(pattern)
    ]
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    single = [ROOT / name for name in (".ci/run", ".clang-format", "pyproject.toml")]
    return [path for path in (*code, *scripts, *single) if path.stat().st_size]


def names_its_licence(path):
    """Whether its SPDX line stands at the top, or below the line that names a script's shell."""
    elsewhere = ("packets.c", "encap.c", "device.h")
    is_program = path.resolve().parent == ROOT / "bpf" or path.name in elsewhere
    expected = OF_THE_PROGRAMS if is_program else OF_ALL
    return any(expected in line for line in path.read_text().splitlines()[:2])


def test_every_source_names_its_licence():
    """Every source file begins with its SPDX line."""
    found = sources()
    assert len(found) > 200
    assert not [str(path.relative_to(ROOT)) for path in found if not names_its_licence(path)]


def test_the_texts_are_there():
    """The text of each licence is there, with its name in it."""
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "bpf/LICENSE.GPL-2.0").read_text()
    assert "Redistributions in binary form" in (ROOT / "bpf/LICENSE.BSD-2-Clause").read_text()
