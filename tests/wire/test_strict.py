# SPDX-License-Identifier: Apache-2.0
"""--strict keeps what it promises: no packet passes under a false name, agent or no agent."""

from __future__ import annotations

import signal
from dataclasses import replace
from ipaddress import IPv4Address

from frames import Udp, tagged, vxlan
from rig import end_agent
from wire import NEIGHBOUR, RECEIVER, SENDER

from vxlane.lab import namespaces
from vxlane.lab.pods import chain
from vxlane.lab.waiting import wait_for
from vxlane.runtime.chain import ContainerInterface

EVERYWHERE = (SENDER, NEIGHBOUR, RECEIVER, "node2-pod2", "wire-node1", "wire-node2")


def by_hand(wire, plain, target):
    """A tunnel that a pod makes by hand, with `plain` in it, to an address."""
    inner = replace(
        plain,
        source_mac=wire.lab.node("node1").vtep_mac,
        dest_mac=wire.lab.node("node2").vtep_mac,
    )
    return replace(
        plain,
        destination=target,
        transport=Udp(source=5555, dest=8472, payload=vxlan(bytes(inner))),
    )


def forgeries(wire, plain):
    """What a pod may try, by name: the frame, and how it is counted."""
    node1, node2 = (wire.lab.node(name) for name in ("node1", "node2"))
    of_the_receiver = replace(plain, source=node2.pod_cidr[99])
    return {
        "another address behind two priority tags": (
            tagged(replace(plain, source=node1.pod_cidr[99]), 0, 0),
            "spoofed_address",
        ),
        "more priority tags than are looked behind": (tagged(plain, 0, 0, 0, 0), "tags"),
        "a tunnel to the peer": (by_hand(wire, plain, node2.address), "forged_tunnel"),
        "a tunnel to the peer, from its own pods": (
            replace(by_hand(wire, of_the_receiver, node2.address), source=plain.source),
            "forged_tunnel",
        ),
        "a tunnel to its own node": (by_hand(wire, plain, node1.address), "forged_tunnel"),
        "a tunnel to its gateway": (by_hand(wire, plain, node1.pod_cidr[1]), "forged_tunnel"),
    }


def test_forgeries_pass_without(wire):
    """Without --strict they fare as without vxlane, and are counted."""
    plain = wire.from_pod(wire.fresh_flow())
    for frame, verdict in forgeries(wire, plain).values():
        outcome = wire.compare([frame], at=SENDER, approve=plain, seen_at=EVERYWHERE)
        assert outcome.bypass == outcome.kernel
        assert f"from_pod {verdict}" in outcome.counted


def test_forgeries(strict_wire):
    """With --strict each is dropped at the pod's veth."""
    plain = strict_wire.from_pod(strict_wire.fresh_flow())
    for what, (frame, verdict) in forgeries(strict_wire, plain).items():
        outcome = strict_wire.compare([frame], at=SENDER, approve=plain, seen_at=EVERYWHERE)
        assert outcome.arrivals == {}, what
        assert outcome.counted == [f"from_pod {verdict}"], what


def test_forgeries_after_the_lease(strict_wire):
    """A dead agent's programs still drop them when its lease is over; what is true passes."""
    wire, lab = strict_wire, strict_wire.lab
    plain = wire.from_pod(wire.fresh_flow(payload=b"the last of the round"))
    sender, receiver = wire.tap(SENDER), wire.tap(RECEIVER)

    def sent(*frames):
        """Send frames and then the plain one; how many datagrams come, and what is counted."""
        receiver.drain()
        seen = []
        with lab.verdicts("node1") as counted:
            for frame in (*frames, plain):
                sender.send(bytes(frame))
            wait_for(lambda: seen.extend(receiver.drain()) or is_last(seen), "the plain one")
        return sum(frame[12:14] == b"\x08\x00" for frame in seen), counted

    end_agent(lab, "node1", signal.SIGKILL)
    wait_for(lambda: sent()[1]["from_pod", "no_agent"], "the end of the lease", seconds=60)
    for what, (frame, verdict) in forgeries(wire, plain).items():
        arrived, counted = sent(frame)
        assert arrived == 1, what
        assert counted["from_pod", verdict] == 1, what


def test_a_second_interface(strict_wire):
    """With --strict a container may answer from the address of another interface of its own."""
    wire, lab = strict_wire, strict_wire.lab
    name = lab.netns(SENDER)
    second = ContainerInterface(container_id=name, netns=namespaces.path(name), ifname="net1")
    address = chain(lab.node("node1")).add(second)["ips"][0]["address"].partition("/")[0]
    plain = wire.from_pod(wire.fresh_flow())
    answer = replace(plain, source=IPv4Address(address))
    outcome = wire.compare([answer], at=SENDER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.arrivals == {"wire-node1": 1, RECEIVER: 1}
    assert "from_pod other_interface" in outcome.counted
    tunnel = replace(by_hand(wire, plain, lab.node("node2").address), source=answer.source)
    outcome = wire.compare([tunnel], at=SENDER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_pod forged_tunnel"]
    forged = replace(answer, source_mac=lab.pod(NEIGHBOUR).mac)
    outcome = wire.compare([forged], at=SENDER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_pod spoofed_mac"]


def is_last(frames):
    """Whether the plain datagram is among them."""
    return any(frame.endswith(b"the last of the round") for frame in frames)
