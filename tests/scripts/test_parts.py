# SPDX-License-Identifier: Apache-2.0
"""The parts that scripts/bench measures."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"


@pytest.mark.parametrize("words", [[], ["nothing"], ["verdict"], ["test_plan"], ["../bench/cni"]])
def test_a_part_that_is_none_is_refused(words):
    """Only the four parts measure; other files beside them do nothing, and are no success."""
    done = subprocess.run([str(BENCH), *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "name a part: agent, cni, looking or rules" in done.stderr
