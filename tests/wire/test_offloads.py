# SPDX-License-Identifier: Apache-2.0
"""Whatever the devices do for the stack, the same data arrives, and by the bypass."""

import itertools

import pytest
import transfer
from offloads import FEATURES, covering, nics, switched, veths
from paths import bypassed, judged
from wire import RECEIVER, SENDER

STOCK = "node3-pod1"
WAYS = ((SENDER, RECEIVER), (RECEIVER, SENDER), (SENDER, STOCK), (STOCK, SENDER))
ALL_ON = (True,) * len(FEATURES)
EVERYDAY = [ALL_ON * 2, *covering(2 * len(FEATURES))]
AGGREGATING = tuple(feature in {"tx", "gro"} for feature in FEATURES)
"""A veth aggregates only what comes from one without TSO."""
FULL = [*itertools.product((False, True), repeat=len(FEATURES))]
STALL_SECONDS = 2.0
"""A pause that is no longer the work of other programs on this machine."""


def digits(row):
    """A row of the matrix as a test's name: a digit for each feature."""
    return "".join("01"[on] for on in row)


def judge(moved, required, optional):
    """All that had to be counted was, and nothing else but what may be and other traffic."""
    moved = judged(moved)
    seen = {f"{program} {verdict}" for program, verdict in moved}
    assert required <= seen <= required | optional
    carried = sum(bypassed(moved).values())
    return carried / sum(moved[key] for key in moved if key[0] in {"from_pod", "from_nic"})


PROGRAMS = ("from_pod", "from_nic", "to_nic", "to_pod")
CONNECTION = {"from_pod encapsulated", "from_nic decapsulated"} | {
    f"{program} tcp_control" for program in PROGRAMS
}
"""What a bypassed connection counts at a node."""
HANDSHAKE = {f"{program} flow_{lack}" for program in PROGRAMS[:2] for lack in ("unknown", "half")}
LEARNED = {"to_nic learned", "to_pod learned"}


def carry_tcp(wire, source, target):
    """A connection: netfilter sees its beginning and its end, the bypass the rest.

    Of the packets that are no handshake the ACK after it alone has to be learned: it leaves the
    client's node, and comes to the server.
    """
    learned = {"to_nic learned"} if source != STOCK else set()
    learned |= {"to_pod learned"} if target != STOCK else set()
    with wire.lab.verdicts(*wire.nodes) as moved:
        transfer.tcp(wire.ends(source, target), 4 << 20)
    assert judge(moved, CONNECTION | learned, HANDSHAKE | LEARNED) > 0.8


def carry_udp(wire, source, target, segments):
    """Datagrams one way: the first is netfilter's, and super-packets that come uncut."""
    with wire.lab.verdicts(*wire.nodes) as moved:
        transfer.udp(wire.ends(source, target), count=20, size=1400, segments=segments)
    required, optional = set(), set()
    if source != STOCK:
        required |= {"from_pod flow_unknown", "from_pod encapsulated", "to_nic learned"}
    if target != STOCK:
        required |= {"from_nic flow_unknown", "to_pod learned"}
        last = {"from_nic decapsulated"}
        if segments > 1:
            optional |= last | {"from_nic gso"}
        else:
            required |= last
    share = judge(moved, required, optional)
    if segments == 1:
        assert share > 0.8


def carry(wire):
    """TCP, datagrams, and datagrams 45 at a time (63,000 bytes): each way of each pair."""
    for source, target in WAYS:
        carry_tcp(wire, source, target)
        carry_udp(wire, source, target, 1)
        carry_udp(wire, source, target, 45)


@pytest.mark.parametrize("row", EVERYDAY, ids=digits)
def test_offloads(wire, row):
    """Any two switches of NICs and pods, in any of their four positions, leave the data whole."""
    nic, pod = row[: len(FEATURES)], row[len(FEATURES) :]
    with switched(wire.lab, nics(wire.lab), nic), switched(wire.lab, veths(wire.lab), pod):
        carry(wire)


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("nic", FULL, ids=digits)
def test_all_offloads(wire, nic):
    """So does every position of all of them."""
    with switched(wire.lab, nics(wire.lab), nic):
        for pod in FULL:
            with switched(wire.lab, veths(wire.lab), pod):
                carry(wire)


@pytest.mark.parametrize("feature", ["rx-gro-list", "rx-udp-gro-forwarding"])
def test_aggregated_datagrams(wire, feature):
    """Datagrams that the NIC put together on their way in arrive as they were sent."""
    with switched(wire.lab, nics(wire.lab), AGGREGATING), wire.feature("node2", "eth0", feature):
        with wire.lab.verdicts("node2") as moved:
            transfer.udp(wire.ends(STOCK, RECEIVER), count=50, size=1400, segments=45)
        assert moved["from_nic", "gso"] > 0
        carry(wire)


def test_uncut_datagrams(wire):
    """A super-packet of datagrams leaves by the bypass and, come uncut, is taken by the kernel."""
    with switched(wire.lab, nics(wire.lab), ALL_ON), wire.counting() as counted:
        transfer.udp(wire.ends(SENDER, RECEIVER), count=20, size=1400, segments=45)
    assert counted == [
        "from_nic flow_unknown",
        *["from_nic gso"] * 19,
        *["from_pod encapsulated"] * 19,
        "from_pod flow_unknown",
        "to_nic learned",
        *["to_pod learned"] * 20,
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("setting", [ALL_ON, AGGREGATING], ids=["uncut", "cut"])
@pytest.mark.parametrize(("source", "target"), [(SENDER, RECEIVER), (RECEIVER, SENDER)])
@pytest.mark.parametrize("gigabytes", [1, pytest.param(10, marks=pytest.mark.full)])
def test_bulk(wire, gigabytes, source, target, setting):
    """Large transfers come whole and without a pause, and by the bypass."""
    with (
        switched(wire.lab, nics(wire.lab), setting),
        wire.lab.verdicts(*wire.nodes) as moved,
    ):
        waited = transfer.tcp(wire.ends(source, target), gigabytes * 10**9)
    assert waited < STALL_SECONDS
    # Longer than 30 s: approvals are renewed on the way. So they are after a timeout, for which a
    # busy machine is enough: the sender tries another path then.
    renewed = {"from_pod flow_aged", "from_nic flow_aged", "from_pod flow_rehashed"}
    assert judge(moved, CONNECTION | LEARNED, HANDSHAKE | renewed) > 0.999
