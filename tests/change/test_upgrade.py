# SPDX-License-Identifier: Apache-2.0
"""An agent of another contract version takes a node over: its pins are in another directory."""

from __future__ import annotations

import contextlib
import shutil
from importlib import resources
from pathlib import Path

import pytest
from everyone import BYPASSED, everyone, stream
from machinecan import BOTH_OPTIONS
from rig import AGENT, ROUNDS, counted

from vxlane.datapath.abi import ABI
from vxlane.datapath.maps import Maps
from vxlane.show import documents

OTHER = ABI + 1


@pytest.fixture
def install_other(tmp_path, monkeypatch):
    """Have all that is started from now on be vxlane of the next contract version."""

    def install():
        # Links are followed: bpf/ is copied, and the checkout's stays as it is.
        shutil.copytree(Path(str(resources.files("vxlane"))), tmp_path / "vxlane")
        header = tmp_path / "vxlane" / "bpf" / "vxlane.h"
        said = header.read_text()
        header.write_text(said.replace(f"VXLANE_ABI = {ABI},", f"VXLANE_ABI = {OTHER},"))
        assert header.read_text() != said
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return install


def pins(lab, node, version):
    """Where a version has its pins."""
    return lab.node(node).directory / "bpf" / str(version)


@contextlib.contextmanager
def opened(lab, **versions):
    """The maps of nodes, each of the version that it runs."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Maps.open(pins(lab, node, version)))
            for node, version in versions.items()
        ]


def moved(before, after):
    """What counters moved, but for noise."""
    difference = documents.subtract(after, before)
    return counted(
        {
            (program.label, verdict.label): count.packets
            for program, verdicts in difference.items()
            for verdict, count in verdicts.items()
            if count.packets
        }
    )


@pytest.mark.parametrize("method", BOTH_OPTIONS)
def test_upgrade(make_lab, install_other, method):
    """Under UDP and TCP the old programs serve until the new ones stand: not a packet is lost.

    Then the new ones bypass as the old ones did, and nothing of the old version is left.
    """
    lab = make_lab(
        nodes=2, pods_per_node=2, kernel_only=0, agent_options=(*AGENT, "--attach", method)
    )
    with everyone(lab) as talks:
        data = stream(talks, lab, "node1-pod2", "node2-pod2")
        with opened(lab, node1=ABI) as (old,):
            talks.start()
            lab.kill_agent("node1")
            before = old.counters()
            talks.go_on()
            served = moved(before, old.counters())
            install_other()
            lab.start_agent("node1", *AGENT, "--attach", method)
            talks.go_on()
            talks.stop()
        assert (talks.lost, talks.faults) == (0, [])
        # On a slow machine the lease that the killed agent left runs out meanwhile.
        assert {key for key in served if key[1] != "no_agent"} == set(BYPASSED)
        assert not pins(lab, "node1", ABI).exists()
        talks.leave(data)
        talks.exchange(10)
        with opened(lab, node1=OTHER, node2=ABI) as maps:
            before = documents.add([each.counters() for each in maps])
            talks.exchange(ROUNDS)
            after = documents.add([each.counters() for each in maps])
        assert moved(before, after) == BYPASSED
        assert talks.lost == 0
