# SPDX-License-Identifier: Apache-2.0
"""A record that another CPU ends while a packet is in a program, and whose element is another
flow's at once: by the packet that flow gets nothing, and nothing is taken from it.

The programs are compiled with the other CPU's work written into them. A CPU gives the element that
was freed last away first, so a test stays on one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from node import Node
from tables.arriving import REPLY, arriving
from tables.case import ACK_DATA, only, sent
from tables.leaving import leaving
from test_half_closed import entries, learn
from testrun import Action, Context
from world import NIC, TCP_FLOW, VETH, Approval
from worldmaps import stand

from vxlane.datapath import compiler, precompiled, syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.programs import Constants
from vxlane.util import scratch

USED = "/* A packet of the flow is bypassed."
GIVE_AWAY = """\
static __always_inline void give_away(struct match *match, __u64 seen_in)
{
	__u32 only = 0;
	struct flow *other = drafts.lookup(&only);
	__u8 open;

	if (!other)
		return;
	open = other->open;
	flows.delete(&match->key);
	match->key.low_port ^= 1;
	other->seen_in = seen_in;
	other->open = 0;
	flows.update(&match->key, other);
	other->seen_in = 0;
	other->open = open;
	match->key.low_port ^= 1;
}

"""
EDITS = {
    USED: GIVE_AWAY,
    "\tflow_use(settings, flow, packet, match": "\tgive_away((struct match *)match, 0);\n",
    "\t\t\trenew(match": "\t\t\tgive_away(match, 0);\n",
    "\t\tkeep_other_half(seen": "\t\tgive_away(match, 1);\n",
}
"""What stands once in the text, and what is put before it."""
CHILD = """\
import json, sys
from vxlane.datapath import compile
flatten, edits = compile.flatten, json.loads(sys.argv[1])
def edited(part):
    text = flatten(part)
    for place, more in edits.items():
        assert text.count(place) == 1, place
        text = text.replace(place, more + place)
    return text
compile.flatten = edited
compile.main()
"""
APPROVED, HALF = Approval(tuple=TCP_FLOW), Approval(tuple=TCP_FLOW, into=None)


def compiled(request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """What the compiler's child answers of the edited text."""
    with scratch.directory(compiler.SCRATCH) as made:
        return subprocess.run(
            [sys.executable, "-I", "-c", CHILD, json.dumps(EDITS)],
            input=json.dumps(request | {"scratch": str(made)}),
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def bench(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The edited programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precompiled, "FILE", Path("none"))
        patch.setattr(compiler, "_child", compiled)
        return node.chamber.run(Bench, tmp_path_factory.mktemp("edited"), Constants())


@contextlib.contextmanager
def one_cpu() -> Iterator[None]:
    """Keep this thread on one CPU inside the block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def had(bench: Bench, flow: Approval, **change: int) -> None:
    """Let `flow` be the only one that has a record, changed so."""
    stand(bench.maps, only(flow))
    ((key, record),) = entries(bench)
    for name, value in change.items():
        setattr(record, name, value)
    # An element that another CPU has made is given away by that one.
    syscall.map_delete(bench.maps._fds["flows"], key)
    syscall.map_update(bench.maps._fds["flows"], key, bytes(record))


@pytest.mark.usefixtures("node")
def test_a_bypassed_packet_opens_its_own_connection(bench: Bench) -> None:
    """The other flow's handshake is its own affair."""
    with one_cpu():
        had(bench, APPROVED)
        run = bench.runners[Program.FROM_POD].run
        assert run(bytes(sent(ACK_DATA)), Context(ifindex=VETH)).action is Action.REDIRECT
    ((_, other),) = entries(bench)
    assert (other.used > 0, other.open) == (True, 0)


@pytest.mark.usefixtures("node")
def test_what_comes_out_approves_its_own_flow(bench: Bench) -> None:
    """The other flow's inbound half has never come out."""
    with one_cpu():
        had(bench, HALF)
        learn(bench, Program.TO_POD, arriving(REPLY), VETH)
    ((_, other),) = entries(bench)
    assert other.seen_in == 0


@pytest.mark.usefixtures("node")
def test_a_new_record_takes_over_nothing(bench: Bench) -> None:
    """The other flow's inbound half is not that of the flow whose record is replaced."""
    with one_cpu():
        had(bench, HALF, source_port=7)
        learn(bench, Program.TO_NIC, leaving(ACK_DATA), NIC)
    assert [record.seen_in for _, record in entries(bench)] == [1]
