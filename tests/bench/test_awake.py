# SPDX-License-Identifier: Apache-2.0
"""CPUs that are kept from halting: by what, and for how long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vxlane.bench import talk
from vxlane.bench.awake import kept_awake
from vxlane.lab.waiting import wait_for

CPUS = sorted(os.sched_getaffinity(0))[:2]
MEASURED = 0.5
"""Seconds."""
KEEPS_AWAKE = """\
import signal, sys
from pathlib import Path
from vxlane.bench.awake import kept_awake
with kept_awake([int(sys.argv[1])], Path(sys.argv[2])):
    print(flush=True)
    signal.pause()
"""


@pytest.fixture(scope="module")
def program(_machine, tmp_path_factory):
    """talk, compiled."""
    return talk.build(tmp_path_factory.mktemp("talk"))


def spinning(parent):
    """The processes that keep CPUs awake for this one."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(one) for one in children if Path(f"/proc/{one}/comm").read_text() == "talk\n"]


def idle_ticks():
    """Of CPUS since the machine started."""
    lines = dict(line.split(maxsplit=1) for line in Path("/proc/stat").read_text().splitlines())
    return sum(sum(map(int, lines[f"cpu{cpu}"].split()[3:5])) for cpu in CPUS)


def test_no_cpu_halts(program):
    """Each CPU has one process that yields to all others, and is not idle until the block ends."""
    with kept_awake(CPUS, program):
        wait_for(lambda: len(spinning(os.getpid())) == len(CPUS), "all of them")
        pids = spinning(os.getpid())
        assert [os.sched_getaffinity(pid) for pid in pids] == [{cpu} for cpu in CPUS]
        assert {os.sched_getscheduler(pid) for pid in pids} == {os.SCHED_IDLE}
        before = idle_ticks()
        time.sleep(MEASURED)
        idle = (idle_ticks() - before) / os.sysconf("SC_CLK_TCK")
    assert idle < 0.1 * MEASURED
    assert spinning(os.getpid()) == []


def test_none_outlives_its_bench(program):
    """What keeps a CPU awake ends with a bench that is killed."""
    command = [sys.executable, "-c", KEEPS_AWAKE, str(CPUS[0]), str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as bench:
        bench.stdout.readline()
        (pid,) = wait_for(lambda: spinning(bench.pid), "what keeps the CPU awake")
        bench.send_signal(signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "its end")
