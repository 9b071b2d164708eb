# SPDX-License-Identifier: Apache-2.0
"""The agent, its lease and what it has pinned. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vxlane.doctor.facts import Facts
from vxlane.doctor.findings import Finding, fail, ok, warn

_SECOND = 1_000_000_000
_LONGEST_LEASE = 10 * _SECOND
"""The agent renews its lease for 3 s. What is much longer was counted from another clock."""
_START = "systemctl restart vxlane"


def agent(facts: Facts) -> Iterator[Finding]:
    """An agent lives, answers, and has nothing to complain of."""
    found = facts.agent
    if found.pid is None:
        meaning = "nothing is bypassed: all packets take the kernel path, and no agent repairs it"
        yield fail("agent", f"no agent runs with {found.state}", meaning, _START)
        return
    if error := found.status.get("error"):
        meaning = "what the agent does is not known; its log may tell"
        yield fail("agent", str(error), meaning, "journalctl -u vxlane -n 100", _START)
        return
    is_well = True
    if waiting := found.status.get("waiting_for"):
        is_well = False
        yield warn(
            "agent", f"it waits for: {waiting}", "the node is not served yet", "vxlane status"
        )
    if error := found.status.get("source_error"):
        is_well = False
        meaning = "it serves the last good nodes, and knows of no change until that is mended"
        yield fail("agent", f"its source of nodes: {error}", meaning, "vxlane status")
    for kind, meaning in (
        ("failures", "the agent could not do this, and tries again by itself"),
        ("problems", "that node, or its entry, is not as it should be"),
    ):
        for sentence in found.status.get(kind, ()):
            is_well = False
            yield warn("agent", sentence, meaning, "vxlane status")
    if is_well:
        yield ok("agent", f"process {found.pid}, mode {found.status.get('mode', 'not known')}")


def lease(facts: Facts) -> Iterator[Finding]:
    """The living agent's lease holds, and its clock is ours."""
    found = facts.agent
    if found.pid is None or found.settings is None:
        return
    left = found.settings.lease_until - found.now
    if left > _LONGEST_LEASE:
        meaning = (
            "its CLOCK_MONOTONIC is not the kernel's (a time namespace), so approvals would not age"
        )
        yield fail("lease", f"the agent's lease ends in {left // _SECOND} s", meaning, _START)
    elif left > 0:
        yield ok("lease", f"{left / _SECOND:.1f} s left")
    elif found.status.get("wanted") == "off":
        meaning = "all packets take the kernel path, as the cluster wants it of this node"
        command = f"vxlane cluster enable {found.status.get('node')} --yes"
        yield fail("lease", "the bypass is switched off", meaning, command)
    elif found.status.get("bypass") == "off":
        meaning = "all packets take the kernel path until the agent is told otherwise or restarted"
        yield fail("lease", "the bypass is switched off", meaning, _START)
    else:
        meaning = (
            "the agent hangs or has too little CPU; all packets take the kernel path meanwhile"
        )
        yield fail("lease", f"it ran out {-left / _SECOND:.1f} s ago", meaning, _START)


def pins(facts: Facts) -> Iterator[Finding]:
    """Maps and programs are pinned where commands and the next agent find them."""
    found = facts.agent
    if not found.maps_error:
        yield ok("bpffs", f"maps and programs are pinned below {found.state}/bpf")
    elif found.pid is not None:
        says = found.maps_error if found.is_mounted else f"no bpffs at {found.state}/bpf"
        meaning = (
            "there are no programs that this command could see; in a container mount the state"
            " directory with propagation Bidirectional"
        )
        yield fail("bpffs", says, meaning, _START)
