# SPDX-License-Identifier: Apache-2.0
"""Whatever the devices do for the stack, the same data arrives, and by the bypass."""

import itertools

import pytest
import transfer
from offloads import FEATURES, covering, nics, switched, veths
from paths import UNSTAMPED, bypassed, judged, ruleset
from wire import NEIGHBOUR, RECEIVER, SENDER

from vxlane.lab.traffic import Ends

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
    # No noise in a lab as quiet as this one.
    unstamped = {UNSTAMPED} & moved.keys()
    moved = judged(moved)
    seen = {f"{program} {verdict}" for program, verdict in moved.keys() | unstamped}
    assert required <= seen <= required | optional
    carried = sum(bypassed(moved).values())
    return carried / sum(moved[key] for key in moved if key[0] in {"from_pod", "from_nic"})


ANSWERED = {"to_pod tcp_control"}
"""At the client's node, by the SYN-ACK."""
BARE = {"to_pod no_stamp"}
"""At the server's node, which learns nothing of the SYN."""
CONTROL = {"from_pod tcp_control"} | ANSWERED
"""Of a connection's beginning."""
CONNECTION = {
    "from_pod encapsulated",
    "from_nic decapsulated",
    "from_nic tcp_control",
    "to_nic tcp_control",
    *CONTROL,
    *BARE,
}
"""What a bypassed connection counts at a node."""
HANDSHAKE = {
    f"{entrance} flow_{lack}"
    for entrance in ("from_pod", "from_nic")
    for lack in ("unknown", "half")
}
LEARNED = {"to_nic learned", "to_pod learned"}


def carry_tcp(wire, source, target):
    """A connection: netfilter sees its beginning, the bypass the rest.

    Of the packets behind SYN and SYN-ACK the ACK alone has to be learned, where it comes to the
    server.
    """
    learned = {"to_pod learned"} if target != STOCK else set()
    required = CONNECTION - (ANSWERED if source == STOCK else BARE if target == STOCK else set())
    with wire.lab.verdicts(*wire.nodes) as moved:
        transfer.tcp(wire.ends(source, target), 4 << 20)
    assert judge(moved, required | learned, HANDSHAKE | LEARNED | BARE) > 0.8


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


SERVICES = {RECEIVER: "10.96.0.20", NEIGHBOUR: "10.96.0.21"}
"""Backend -> the address at which node1's netfilter has it, all ports."""


@pytest.fixture(scope="module", autouse=True)
def _services(wire):
    """Services on node1."""
    rules = [
        ["PREROUTING", "-d", virtual, "-j", "DNAT", "--to-destination", wire.lab.address(backend)]
        for backend, virtual in SERVICES.items()
    ]
    for operation in ("-A", "-D"):
        with ruleset(wire.lab, "node1"):
            for rule in rules:
                wire.lab.exec("node1", "iptables", "-t", "nat", operation, *rule)
        if operation == "-A":
            yield


SERVICE_OPTIONAL = {
    "from_pod no_peer",
    "to_nic learned",
    "to_nic translated",
    "to_pod translated",
    "to_pod learned",
    # Of datagrams without one, while a stock tunnel has one.
    "from_nic no_checksum",
    # A super-packet that a device without the offload cuts up: its segments have one stamp, and
    # what NAT leaves alone is compared with the first.
    "to_nic changed",
    "to_pod changed",
}


def carry_by_service(wire, backend):
    """The same by a Service, from the client and to it; and datagrams that have no checksum."""
    ends = Ends(wire.lab.netns(SENDER), wire.lab.netns(backend), SERVICES[backend])
    is_near = backend == NEIGHBOUR
    for back in (False, True):
        with wire.lab.verdicts(*wire.nodes) as moved:
            transfer.tcp(ends, 4 << 20, back=back)
        near = {"from_pod nat"} | CONTROL
        far = CONNECTION | {"from_pod nat", "from_nic nat", "to_pod learned"}
        assert judge(moved, near if is_near else far, HANDSHAKE | SERVICE_OPTIONAL) > 0.8
        for segments, checksums in ((1, True), (1, False), (45, True)):
            with wire.lab.verdicts(*wire.nodes) as moved:
                transfer.udp(
                    ends, count=20, size=1400, segments=segments, back=back, checksums=checksums
                )
            share = judge(moved, *by_service(is_near, back, segments))
            if segments == 1:
                assert share > 0.8


def by_service(is_near, back, segments):
    """What a flow of datagrams by a Service must count at the nodes, and what it may."""
    optional = HANDSHAKE | SERVICE_OPTIONAL
    if is_near:
        return {"from_pod no_peer", "from_pod nat", "to_pod learned"}, optional
    required = {"from_pod no_peer", "to_nic translated", "to_pod learned"}
    if not back:
        required |= {"from_pod nat"}
        into_pod = {"from_nic decapsulated"}
    else:
        required |= {"from_pod encapsulated"}
        into_pod = {"from_nic nat"}
    if segments == 1:
        return required | into_pod, optional
    return required, optional | into_pod | {"from_nic gso"}


def carry(wire):
    """TCP, datagrams, and datagrams 45 at a time (63,000 bytes): each way of each pair."""
    for source, target in WAYS:
        carry_tcp(wire, source, target)
        carry_udp(wire, source, target, 1)
        carry_udp(wire, source, target, 45)
    for backend in SERVICES:
        carry_by_service(wire, backend)


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
    assert judge(moved, CONNECTION | {"to_pod learned"}, HANDSHAKE | LEARNED | renewed) > 0.999
