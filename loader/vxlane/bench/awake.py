# SPDX-License-Identifier: Apache-2.0
"""Keeps CPUs from halting.

A CPU that has nothing to do halts, and to wake it takes as long as many packets; on a virtual
machine it is the hypervisor's work. So two paths whose packets arrive at other moments differ by
how often they find a CPU halted. Where each CPU has a process of SCHED_IDLE, which yields to
whatever else wants to run, they differ by the work alone.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def kept_awake(cpus: Sequence[int], talk: Path) -> Iterator[None]:
    """None of these CPUs halts during the block. `talk`: the compiled program."""
    with contextlib.ExitStack() as stack:
        for cpu in cpus:
            command = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(cpu)]
            command += ["chrt", "--idle", "0", str(talk), "spin"]
            spinning = stack.enter_context(subprocess.Popen(command))
            stack.callback(spinning.kill)
        yield
