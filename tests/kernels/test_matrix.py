# SPDX-License-Identifier: Apache-2.0
"""What the matrix makes of a machine's words, and what a machine starts from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import initramfs
import matrix
import pytest
from image import Image
from machine import Outcome
from suites import SUITES

IMAGE = Image(SUITES[0], Path("unused"))
FIRST = """..F.s
=== short test summary info ===
FAILED tests/datapath/test_load.py::test_a[x y] - AssertionError: no
ERROR tests/datapath/test_load.py::test_b - OSError: no
1 failed, 1100 passed, 2 skipped, 1 error in 301.25s (0:05:01)
"""


def row(text: str) -> matrix.Row:
    """The row of a kernel whose tests said this."""
    return matrix._row(IMAGE, "6.1", "bcc 0.26.0", text)


def test_all_passed() -> None:
    """Counts are pytest's own, and nothing failed."""
    made = row("....\r\n1102 passed, 3 skipped in 250.00s (0:04:10)\r\n")
    assert (made.result, made.failures) == ("1102 passed, 3 skipped", ())


def test_what_failed_and_then_passed_is_told() -> None:
    """Both attempts are told, and the second one decides."""
    made = row(f"{FIRST}{matrix.AGAIN}\n2 passed in 9.10s\n")
    first = "1 failed, 1100 passed, 2 skipped, 1 error"
    assert (made.result, made.failures) == (f"{first}; these once more: 2 passed", ())


def test_what_failed_twice_is_named() -> None:
    """The names are those of the second attempt."""
    again = "FAILED tests/datapath/test_load.py::test_a[x y] - no\n1 failed in 2.0s\n"
    made = row(f"{FIRST}{matrix.AGAIN}\n{again}")
    assert made.failures == ("tests/datapath/test_load.py::test_a[x y]",)


def test_a_machine_that_did_not_end() -> None:
    """Without a last line of pytest's the kernel has failed."""
    assert row("....").failures == ("did not end",)
    assert row(f"{FIRST}{matrix.AGAIN}\n..").failures == ("did not end once more",)


def test_marks_of_a_machine() -> None:
    """Versions and the status are lines of their own on a console with carriage returns."""
    outcome = Outcome("[ 1.0] x\r\n@@ kernel 6.1.0-1\r\n@@ bcc 0.26.0\r\n@@ status 0\r\n", 1.0)
    assert outcome.said == {"kernel": "6.1.0-1", "bcc": "0.26.0", "status": "0"}


@pytest.mark.usefixtures("_machine")
def test_archive() -> None:
    """What the kernel starts from is an archive that cpio reads: folders before files."""
    made = initramfs.archive({"init": b"#!/bin/sh\n", "modules/x.ko": b"12345"})
    done = subprocess.run(["busybox", "cpio", "-t"], input=made, check=True, capture_output=True)
    names = done.stdout.decode().split()
    assert names == ["dev", "dev/console", "modules", "init", "modules/x.ko"]
