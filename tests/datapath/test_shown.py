# SPDX-License-Identifier: Apache-2.0
"""What conntrack is shown of a connection that closes: copies, as they arrive at a device.

The rows are those of tables/closing.py. A test run sends nothing itself, but its copies are real:
packet sockets at the bridge and at the VXLAN device read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import test_handshake as handshake
from bench import Bench
from chamber import Port
from frames import ACK, ENCAPSULATION, FIN, mac, super_packet
from node import Node
from tables import closing, from_nic, from_pod, nat
from tables.case import ACK_DATA, DATAGRAM, Case, handed_over, only, sent
from tables.from_nic import ANSWER, RESPONSE, carried, inner
from test_nat import vxlane
from test_tables import action, is_bypassed, is_encapsulated, masked
from testrun import Context
from world import APPROVED, NIC, NO_DEVICE, VETH, Approval
from worldmaps import stand

from vxlane.datapath.abi import Program, Verdict
from vxlane.netlink.socket import NetlinkSocket

NOBODY = mac(closing.NOBODY)
BRIDGE, VTEP = "cni0", "flannel.1"
LAST = b"the last that is looked at"
MARKERS = (
    (BRIDGE, Program.FROM_POD, sent(replace(ACK_DATA, flags=FIN | ACK, payload=LAST)), VETH),
    (VTEP, Program.FROM_NIC, carried(inner(replace(RESPONSE, flags=FIN | ACK, payload=LAST))), NIC),
)
Copies = dict[str, list[bytes]]


@pytest.fixture
def devices(node: Node) -> Iterator[dict[str, Port]]:
    """What arrives at the devices by which conntrack is shown copies."""
    made = {name: node.chamber.run(Port, name) for name in (BRIDGE, VTEP)}
    yield made
    for port in made.values():
        port.close()


def shown(bench: Bench, devices: dict[str, Port]) -> Copies:
    """What has arrived at each device so far, up to a FIN whose copy must come."""
    stand(bench.maps, APPROVED)
    seen = {}
    for device, program, frame, ifindex in MARKERS:
        bench.runners[program].run(bytes(frame), Context(ifindex=ifindex))
        seen[device] = devices[device].until(lambda one: one.endswith(LAST))[:-1]
    return seen


def due(case: Case) -> Copies:
    """The copies of a row whose connection closes: the frame as it came, but to nobody.

    What came in a tunnel has the outer source MAC still, which conntrack does not read.
    """
    seen: Copies = {BRIDGE: [], VTEP: []}
    frame = bytes(case.frame)
    if is_bypassed(case) and case.program is Program.FROM_POD:
        if case.verdict != Verdict.SWITCHED or case.world.pods[0].bridge_netfilter:
            seen[BRIDGE].append(NOBODY + frame[6:])
    elif is_bypassed(case) and case.world.vtep != NO_DEVICE:
        seen[VTEP].append(NOBODY + frame[6:12] + frame[ENCAPSULATION + 12 :])
    return seen


def run(bench: Bench, case: Case) -> None:
    """Send the frame of a row through its program; what leaves, and what is left, is right."""
    standing = stand(bench.maps, case.world)
    result = bench.runners[case.program].run(bytes(case.frame), case.context(0))
    assert result.action == action(case.verdict, bench.constants.strict)
    output = bytes(case.frame if case.output is None else case.output)
    if is_encapsulated(case):
        assert masked(result.frame).hex(" ") == masked(output).hex(" ")
    else:
        assert result.frame.hex(" ") == output.hex(" ")
    assert standing.flows() == (case.world.flows if case.flows is None else case.flows)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("case", closing.CASES, ids=str)
def test_what_is_bypassed_is_shown(bench: Bench, devices: dict[str, Port], case: Case) -> None:
    """Of a connection that closes one copy is shown of what is bypassed, and none of other packets.

    It is what the device would have received: before NAT, with the TTL and the TOS that it came
    with. It has no part in what the receiver gets.
    """
    run(bench, case)
    assert shown(bench, devices) == due(case)


OPEN = [
    row
    for row in (*from_pod.BYPASSED, *from_nic.BYPASSED, *nat.THROUGH_TUNNEL, *nat.TO_NEIGHBOUR)
    if is_bypassed(row)
]


@pytest.mark.usefixtures("node")
def test_what_is_open_is_not_shown(bench: Bench, devices: dict[str, Port]) -> None:
    """Conntrack is shown no copy of any packet of a connection that nobody has closed."""
    for case in OPEN:
        run(bench, case)
    assert shown(bench, devices) == {BRIDGE: [], VTEP: []}


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("flow", [handshake.PEERS, handshake.NEIGHBOURS], ids=["peer", "neighbour"])
def test_the_ack_of_a_handshake_is_shown(
    bench: Bench, devices: dict[str, Port], flow: Approval
) -> None:
    """Of a connection that opens conntrack is shown a copy of the ACK, and of nothing behind it."""
    handshake.shake(bench, flow, only())
    for segment in (handshake.ACKS, handshake.ASKS):
        assert handshake.is_bypassed(bench, flow, segment)
    copy = NOBODY + bytes(handshake.pod_frame(flow, handshake.ACKS))[6:]
    assert shown(bench, devices) == {BRIDGE: [copy], VTEP: []}


PROBE = replace(DATAGRAM, source=40901, payload=b"it has come by the kernel path")


def test_a_copy_reaches_nobody(node: Node, bench: Bench) -> None:
    """No copy leaves the node or enters a pod, and the node itself answers none."""
    cables = (node.wire, node.pod, node.neighbour)
    for port in cables:
        port.drain()
    for case in closing.CASES:
        run(bench, case)
    node.pod.send(bytes(sent(PROBE)))
    node.pod.send(bytes(handed_over(PROBE)))
    node.wire.send(bytes(carried(inner(replace(ANSWER, source=40901, payload=PROBE.payload)))))
    for port in cables:
        seen = port.until(lambda one: one.endswith(PROBE.payload))
        assert [one.hex(" ") for one in seen[:-1] if one[12:14] == b"\x08\x00"] == []


LIVE = [closing.first_fin()[0], closing.first_fin()[1], closing.TO_NEIGHBOUR[0]]


@pytest.mark.parametrize("case", LIVE, ids=str)
def test_on_the_hooks(
    node: Node, bench: Bench, netlink: NetlinkSocket, devices: dict[str, Port], case: Case
) -> None:
    """A frame of the cable's is shown as one of a test run is, and arrives as it must."""
    frame, output = bytes(case.frame), bytes(case.output or case.frame)
    source, far = node.pod, node.wire
    if case.program is Program.FROM_NIC:
        source, far = node.wire, node.pod
    elif not is_encapsulated(case):
        far = node.neighbour
    # The outer header is the wire's.
    start = ENCAPSULATION if is_encapsulated(case) else 0
    stand(bench.maps, case.world)
    far.drain()
    with vxlane(bench, netlink), bench.counting() as moved:
        source.send(frame)
        seen = far.receive(lambda one: one.endswith(output[-8:]))
    assert moved.packets == {(case.program, case.verdict): 1}
    assert seen[start:].hex(" ") == output[start:].hex(" ")
    assert shown(bench, devices) == due(case)


SEGMENT, VNET_HEADER = 1300, 10
LONG = {"flags": FIN | ACK, "payload": bytes(number % 251 for number in range(3 * SEGMENT + 77))}


@pytest.mark.parametrize("to", ["peer", "neighbour"])
def test_a_super_packet_is_shown_whole(
    node: Node, bench: Bench, netlink: NetlinkSocket, devices: dict[str, Port], to: str
) -> None:
    """A super-packet that ends in a FIN is shown in one piece, with its checksum still to do."""
    far, frame = node.wire, sent(replace(ACK_DATA, **LONG))
    if to == "neighbour":
        far, frame = node.neighbour, handed_over(replace(from_pod.LOCAL_DATA, **LONG))
    made = super_packet(frame, SEGMENT)
    stand(bench.maps, APPROVED)
    far.drain()
    with vxlane(bench, netlink), bench.counting() as moved:
        node.pod.send_super(made)
        far.receive(lambda one: one.endswith(made[-8:]))
    verdict = Verdict.SWITCHED if to == "neighbour" else Verdict.ENCAPSULATED
    assert moved.packets == {(Program.FROM_POD, verdict): 1}
    copy = NOBODY + made[VNET_HEADER + 6 :]
    assert shown(bench, devices) == {BRIDGE: [copy], VTEP: []}
