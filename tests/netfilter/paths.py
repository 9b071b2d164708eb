# SPDX-License-Identifier: Apache-2.0
"""Which way packets went, by the counters and by the flow records."""

from __future__ import annotations

import contextlib

from vxlane.datapath.abi import Verdict, VerdictKind
from vxlane.lab.waiting import wait_for

REVALIDATE = 1
"""Of the quick lab, seconds."""
STALL = 1.0
"""Seconds; TCP repeats what is lost after 0.2, 0.6, 1.4 s."""
FOREIGN = {"not_ip", "not_overlay"}
"""ARP, IPv6 neighbours and the switch's own come and go with no test's doing."""
FLOODED = ("to_pod", "no_pod")
"""So does what a young bridge sends to all pods, for it has not learned yet where one is."""
UNSTAMPED = ("to_pod", "no_stamp")
"""So does what the node itself sends to a pod, ARP for one. A connection's last ACK counts so
too, and all else that no entrance noted: a test of that counts it beside judged()."""
BYPASSES = {verdict.label for verdict in Verdict if verdict.kind is VerdictKind.BYPASSED}

CONNECTING = {
    *((entrance, "tcp_control") for entrance in ("from_pod", "from_nic")),
    *((entrance, "flow_unknown") for entrance in ("from_pod", "from_nic")),
    *((entrance, "flow_half") for entrance in ("from_pod", "from_nic")),
    *((exit_, verdict) for exit_ in ("to_pod", "to_nic") for verdict in ("tcp_control", "learned")),
}
"""What connections that become approved move before and after the bypass, and nothing else."""


def judged(seen):
    """The counters that moved, without noise."""
    return {
        key: count
        for key, count in seen.items()
        if key[1] not in FOREIGN and key not in (FLOODED, UNSTAMPED)
    }


def came(seen, program, *verdicts):
    """How many packets a program has given one of the verdicts."""
    return sum(seen[program, verdict] for verdict in verdicts)


def bypassed(seen):
    """The counters of the bypass that moved."""
    return {key: count for key, count in seen.items() if key[1] in BYPASSES}


def approved_ports(lab, node, pod):
    """The local ports of a pod's flows of which both halves are approved, under today's rules."""
    local = lab.pod(pod).address
    with lab.maps(node) as maps:
        epoch = maps.settings().epoch
        return {
            flow.tuple.local_port
            for flow in maps.flows()
            if flow.tuple.local == local and flow.seen_out and flow.seen_in and flow.epoch == epoch
        }


@contextlib.contextmanager
def ruleset(lab, node):
    """Change netfilter's rules inside; return when the node's agent, if any, has taken notice.

    The kernel tells of a transaction before its writer goes on, and the agent answers nothing
    before it has heard that. What packets of pods may meet is then read aside.
    """
    yield
    if lab.agent_pid(node) is not None:
        wait_for(lambda: not lab.ask(node, op="status")["status"]["rules_unread"], "the rules")
