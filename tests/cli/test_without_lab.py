# SPDX-License-Identifier: Apache-2.0
"""A node's installation, which may leave out the lab and the bench, which needs that."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LOADER = Path(__file__).parents[2] / "loader"
BY_ITSELF = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in f"{f}"]
"""
"""An editable installation's finder would offer the checkout's lab."""
EVERY_MODULE = f"""{BY_ITSELF}
import importlib, pkgutil, vxlane
names = [m.name for m in pkgutil.walk_packages(vxlane.__path__, "vxlane.")]
left_out = ("vxlane.cli.lab", "vxlane.cli.bench", "vxlane.datapath.compile")
names = [n for n in names if n not in left_out]
for name in names:
    importlib.import_module(name)
print(len(names), vxlane.__file__)
"""
"""Imports all but the commands of lab and bench, and the child that compiles, which needs bcc."""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Run Python with a copy of the package that has no lab and no bench."""
    root = tmp_path_factory.mktemp("node")
    left_out = shutil.ignore_patterns("lab", "bench", "__pycache__")
    shutil.copytree(LOADER / "vxlane", root / "vxlane", ignore=left_out)

    def run(*arguments, check=True):
        environment = os.environ | {"PYTHONPATH": str(root)}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, check=check, capture_output=True, text=True, env=environment, cwd=root
        )

    run.root = root
    return run


def test_nothing_else_needs_the_lab(node):
    """Every other module is imported where the lab's files are absent."""
    count, where = node("-c", EVERY_MODULE).stdout.split()
    assert int(count) > 100
    assert Path(where).is_relative_to(node.root)


def test_the_commands_are_not_offered(node):
    """The help offers neither `lab` nor `bench`, and the word `lab` is refused like any other."""
    run = f"{BY_ITSELF}\nfrom vxlane.cli.main import main; main()"
    shown = node("-c", run, "--help").stdout
    assert "\n  status " in shown
    assert not {"lab", "bench"} & {line.split()[0] for line in shown.splitlines() if line.strip()}
    done = node("-c", run, "lab", "up", check=False)
    assert (done.returncode, "No such command 'lab'" in done.stderr) == (2, True)
