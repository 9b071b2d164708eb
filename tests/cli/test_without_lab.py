# SPDX-License-Identifier: Apache-2.0
"""A node's installation, which may leave the lab out."""

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
names = [n for n in names if n not in ("vxlane.cli.lab", "vxlane.datapath.compile")]
for name in names:
    importlib.import_module(name)
print(len(names), vxlane.__file__)
"""
"""Imports all but the lab's command, and the child that compiles, which needs bcc."""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Run Python with a copy of the package that has no lab."""
    root = tmp_path_factory.mktemp("node")
    left_out = shutil.ignore_patterns("lab", "__pycache__")
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


def test_the_command_is_not_offered(node):
    """The help does not offer `lab`, and the word is refused like any other that is none."""
    run = f"{BY_ITSELF}\nfrom vxlane.cli.main import main; main()"
    shown = node("-c", run, "--help").stdout
    assert "\n  status " in shown
    assert "\n  lab " not in shown
    done = node("-c", run, "lab", "up", check=False)
    assert (done.returncode, "No such command 'lab'" in done.stderr) == (2, True)
