# SPDX-License-Identifier: Apache-2.0
"""The share of bypassed packets is a share of all that pods send to other nodes' pods."""

from __future__ import annotations

from numbered import PORT, Listener, Talk, traffic

SERVICE = "10.96.0.10"
ROUNDS = 100


def test_packets_to_a_service_count(flannel):
    """Packets to a Service with its pod on another node are in the share, bypassed or not."""
    flannel.start_agent("node1", mode="adopt")
    target = f"{flannel.address('node2-pod1')}:{PORT}"
    match = f"-d {SERVICE} -p udp --dport {PORT}"
    flannel.sh("node1", f"iptables -t nat -A PREROUTING {match} -j DNAT --to {target}")
    with traffic() as made:
        made.join(Listener(flannel.netns("node2-pod1"), "node2"))
        made.join(Talk(flannel.netns("node1-pod1"), SERVICE))
        before = share(flannel)
        with flannel.verdicts("node1") as seen:
            made.begin()
            made.exchange(ROUNDS)
        after = share(flannel)
        assert made.lost == 0
    # from_pod takes the first for one that leaves the overlay, until to_nic sees it come out. Later
    # ones of which netfilter sees one in a while are known for what they are.
    others = sum(
        seen["from_pod", f"flow_{lack}"] for lack in ("unknown", "half", "aged", "withdrawn")
    )
    assert seen["to_nic", "translated"] >= 1
    assert seen["from_pod", "nat"] + seen["from_pod", "flow_aged"] >= ROUNDS
    assert after["bypassed"] - before["bypassed"] == seen["from_pod", "nat"]
    counted = seen["from_pod", "nat"] + seen["to_nic", "translated"] + others
    assert after["packets"] - before["packets"] == counted


def share(cluster):
    """What was bypassed of all that pods of node1 sent."""
    return cluster.vxlane("node1", "stats")["bypassed"]["from_pod"]
