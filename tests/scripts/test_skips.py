# SPDX-License-Identifier: Apache-2.0
"""What a skip means: in CI nobody reads that a test was left out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILE = "pytest.skip('no such program', allow_module_level=True)"
MARK = "@pytest.mark.skip\ndef test_it(): pass"
LACK = "def test_it(): machinecan.lacks('such kernel')"


@pytest.mark.parametrize(
    ("text", "ci", "status"),
    [(FILE, "true", 1), (MARK, "true", 1), (LACK, "true", 0), (FILE, "", 0), (MARK, "", 0)],
)
def test_a_skip_fails_in_ci(tmp_path, text, ci, status):
    """Of a test and of a file of tests, unless the kernel lacks what it is about."""
    (tmp_path / "test_skipped.py").write_text(f"import machinecan\nimport pytest\n{text}\n")
    (tmp_path / "test_other.py").write_text("def test_it(): pass\n")
    pytest_ = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*pytest_, "--continue-on-collection-errors", tmp_path],
        check=False,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(TESTS)},
    )
    assert done.returncode == status, done.stdout
