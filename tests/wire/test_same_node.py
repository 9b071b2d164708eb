# SPDX-License-Identifier: Apache-2.0
"""Between pods of one node the bypass does what their bridge does."""

from dataclasses import replace

import pytest
import transfer
from exotic import to
from frames import DF, IP
from wire import NEIGHBOUR, SENDER

from vxlane.lab.waiting import wait_for

EVERYWHERE = (SENDER, NEIGHBOUR, "wire-node1")
SWITCHED = ["from_pod switched"]


@pytest.fixture
def near(wire):
    """A packet of a flow of its own between neighbours."""
    return wire.from_pod(wire.fresh_flow(b"0123456789"), target=NEIGHBOUR)


def probe(wire, near, *frames):
    """Send `frames` beside the approved flow of `near`, by both ways, and compare."""
    outcome = wire.compare(frames, at=SENDER, approve=near, seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    return outcome


@pytest.mark.parametrize(
    "changes",
    [{"ttl": 1}, {"ttl": 64}, {"tos": 0xBB}, {"fragment": 0}, {"identification": 0}],
    ids=["ttl_1", "ttl_64", "tos", "may_fragment", "identification"],
)
def test_handed_over_unchanged(wire, near, changes):
    """A bridged packet reaches the neighbour with every bit as it was sent."""
    frame = replace(near, **changes)
    outcome = probe(wire, near, frame)
    assert outcome.bypass == {SENDER: [], NEIGHBOUR: [bytes(frame)], "wire-node1": []}
    assert outcome.counted == SWITCHED


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [({"options": bytes([1, 1, 1, 0])}, "ip_options"), ({"padding": bytes(9)}, "malformed")],
    ids=["options", "padding"],
)
def test_left_to_the_bridge(wire, near, changes, verdict):
    """What the programs don't carry crosses the bridge."""
    outcome = probe(wire, near, replace(near, **changes))
    assert outcome.arrivals == {NEIGHBOUR: 1}
    assert outcome.counted == [f"from_pod {verdict}", "to_pod no_stamp"]


def test_by_the_gateway(wire, near):
    """A packet to a neighbour by way of the gateway is routed, and its sender told better."""
    outcome = probe(wire, near, replace(near, dest_mac=wire.mac("node1", "cni0")))
    assert outcome.arrivals == {NEIGHBOUR: 1, SENDER: 1}
    assert outcome.counted == ["from_pod other_mac", "to_pod changed", "to_pod no_stamp"]


def test_to_itself(wire, near):
    """A packet that a pod sends to itself comes back by the bridge's hairpin."""
    itself = wire.lab.pod(SENDER)
    outcome = probe(wire, near, *[to(near, itself.address, itself.mac)] * 2)
    assert outcome.arrivals == {SENDER: 2}
    # The bypass has no hairpin, so nothing is learned.
    assert outcome.counted == [*["from_pod flow_unknown"] * 2, *["to_pod changed"] * 2]


def test_neighbour_takes_less(wire):
    """A packet larger than the neighbour's veth takes is the bridge's to cut or to drop."""
    flow = wire.fresh_flow()
    large = wire.from_pod(replace(flow, payload=bytes(1400 - IP - 8)), target=NEIGHBOUR)
    near = wire.from_pod(flow, target=NEIGHBOUR)
    pod = wire.lab.pod(NEIGHBOUR)

    def taken():
        with wire.lab.maps("node1") as maps:
            return maps.pods()[pod.address].mtu

    with wire.mtu("node1", pod.veth, 1300):
        wait_for(lambda: taken() == 1300, "the agent to see the veth's MTU")
        dropped = probe(wire, near, replace(large, fragment=DF))
        cut = probe(wire, near, replace(large, fragment=0))
    wait_for(lambda: taken() == 1450, "the agent to see the veth's MTU again")
    assert dropped.arrivals == {}
    assert dropped.counted == ["from_pod too_big"]
    assert cut.arrivals == {NEIGHBOUR: 2}
    assert cut.counted == ["from_pod too_big", "to_pod fragment", "to_pod fragment"]


def test_transfers(wire):
    """TCP and datagrams, 45 at a time and fragmented too, arrive whole, and past the bridge."""
    ends = wire.ends(SENDER, NEIGHBOUR)
    with wire.counting() as counted:
        transfer.udp(ends, count=20, size=1400, segments=45)
    assert counted == ["from_pod flow_unknown", *["from_pod switched"] * 19, "to_pod learned"]
    with wire.counting() as counted:
        transfer.udp(ends, count=20, size=4000)
    assert counted == [*["from_pod fragment"] * 60, *["to_pod no_stamp"] * 60]
    with wire.lab.verdicts("node1") as moved:
        transfer.tcp(ends, 64 << 20)
    assert set(moved) == {
        ("from_pod", "switched"),
        ("from_pod", "tcp_control"),
        ("to_pod", "tcp_control"),
    }
    assert moved["from_pod", "switched"] > 0.99 * sum(
        packets for (program, _), packets in moved.items() if program == "from_pod"
    )
