"""Which way packets went, by the counters and by the flow records."""

from __future__ import annotations

import contextlib

from vxlane.loader.lab.waiting import wait_for

REVALIDATE = 2
"""Of the quick lab, seconds."""
NOISE = {"not_ip", "not_overlay"}
"""ARP, IPv6 neighbours and the switch's own: they come and go with no test's doing."""
BYPASSES = {"encapsulated", "decapsulated", "switched", "routed"}

CONNECTING = {
    *((entrance, "tcp_control") for entrance in ("from_pod", "from_nic")),
    *((entrance, "flow_unknown") for entrance in ("from_pod", "from_nic")),
    *((entrance, "flow_half") for entrance in ("from_pod", "from_nic")),
    *(
        (exit_, verdict)
        for exit_ in ("to_pod", "to_overlay")
        for verdict in ("tcp_control", "learned")
    ),
}
"""What connections that become approved move before and after the bypass, and nothing else."""


def judged(seen):
    """The counters that moved, without noise."""
    return {key: count for key, count in seen.items() if key[1] not in NOISE}


def bypassed(seen):
    """The counters of the bypass that moved."""
    return {key: count for key, count in seen.items() if key[1] in BYPASSES}


def approved_ports(lab, node, pod):
    """The local ports of a pod's flows of which both halves are approved."""
    local = lab.pod(pod).address
    with lab.maps(node) as maps:
        return {
            flow.tuple.local_port
            for flow in maps.flows()
            if flow.tuple.local == local and flow.seen_out and flow.seen_in
        }


@contextlib.contextmanager
def ruleset(lab, node):
    """Change netfilter's rules inside; return when the node's agent has taken notice."""
    with lab.maps(node) as maps:
        epoch = maps.settings().epoch
        yield
        wait_for(lambda: maps.settings().epoch != epoch, f"{node}'s agent to see its rules change")
