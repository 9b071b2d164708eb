# SPDX-License-Identifier: Apache-2.0
"""What leaves by the NIC after the kernel path: outbound halves, and what teaches nothing.

The program leaves every packet as it is; what it changes is the flow records.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from frames import (
    ACK,
    CE,
    DF,
    ECHO_REPLY,
    ECT0,
    FIN,
    IPV6,
    MF,
    RST,
    SYN,
    Frame,
    Icmp,
    Raw,
    Tcp,
    Udp,
    vxlan,
)
from world import (
    BRIDGE_MAC,
    END_POD,
    EPOCH,
    NIC,
    NIC_MAC,
    NODE_ADDRESS,
    OTHER_PEER,
    OTHER_REMOTE,
    OVERLAY_MAC,
    PEER,
    PING_FLOW,
    PINGED_FLOW,
    PORT,
    ROUTER_MAC,
    SEQUENCE,
    STRANGER,
    TCP_FLOW,
    UDP_FLOW,
    VETH,
    Approval,
    World,
)

from tables.case import ACK_DATA, DATAGRAM, PING, Case, noted, only, sent
from vxlane.datapath.abi import Program, Verdict, Way

UNKNOWN = only()
LINKED = replace(UNKNOWN, peers=(PEER, replace(OTHER_PEER, way=Way.DIRECT)))
NOW = 0


def leaving(transport: Tcp | Udp | Icmp | Raw, **changes: Any) -> Frame:
    """The inner frame of what POD sends to REMOTE, one hop later."""
    return sent(
        transport, **{"source_mac": OVERLAY_MAC, "dest_mac": PEER.vtep_mac, "ttl": 63, **changes}
    )


def left(inner: Frame, **changes: Any) -> Frame:
    """What leaves by the NIC: `inner` in VXLAN to PEER, as flannel.1 sends it."""
    base = Frame(
        source_mac=NIC_MAC,
        dest_mac=ROUTER_MAC,
        source=NODE_ADDRESS,
        destination=PEER.address,
        tos=ECT0 if inner.tos & CE == CE else inner.tos & CE,
        fragment=0,
        transport=Udp(source=World().source_port, dest=PORT, payload=vxlan(bytes(inner))),
    )
    return replace(base, **changes)


def to_nic(verdict: Verdict, fact: str, inner: Frame, **more: Any) -> Case:
    """A row for the NIC; `outer`: changes of the frame around `inner`."""
    outer = more.pop("outer", {})
    more = {"world": UNKNOWN, "note": noted(inner, 1), "frame": left(inner, **outer), **more}
    return Case(program=Program.TO_NIC, verdict=verdict, fact=fact, ifindex=NIC, **more)


def record(*flows: Approval) -> frozenset[Approval]:
    """The flow records after a run."""
    return frozenset(flows)


REPLY, ANSWER = Tcp(source=80, dest=40000), Udp(source=53, dest=40001)
PONG = Icmp(kind=ECHO_REPLY, identifier=77)
BOTH, OLD = Approval(tuple=TCP_FLOW), Approval(tuple=TCP_FLOW, out=500, into=500)

LEARNED_OUT = [
    to_nic(Verdict.LEARNED, fact, leaving(transport), flows=record(flow), world=world)
    for fact, transport, world, flow in (
        ("TCP", ACK_DATA, UNKNOWN, Approval(tuple=TCP_FLOW, out=NOW, into=None)),
        ("UDP", DATAGRAM, UNKNOWN, Approval(tuple=UDP_FLOW, out=NOW, into=None)),
        ("an echo request", PING, UNKNOWN, Approval(tuple=PING_FLOW, out=NOW, into=None)),
        (
            "an echo reply",
            Icmp(kind=ECHO_REPLY, identifier=78),
            UNKNOWN,
            Approval(tuple=PINGED_FLOW, out=NOW, into=None),
        ),
        (
            "the second half beside the first",
            ACK_DATA,
            only(Approval(tuple=TCP_FLOW, out=None, into=5)),
            Approval(tuple=TCP_FLOW, out=NOW, into=5),
        ),
        ("an aged half anew", ACK_DATA, only(OLD), replace(OLD, out=NOW)),
        (
            "a withdrawn record loses the other half",
            ACK_DATA,
            only(replace(BOTH, epoch=6)),
            Approval(tuple=TCP_FLOW, out=NOW, into=None),
        ),
        (
            "an earlier pod's record loses the other half",
            ACK_DATA,
            only(replace(BOTH, ifindex=VETH + 100)),
            Approval(tuple=TCP_FLOW, out=NOW, into=None),
        ),
    )
]

NOT_LEARNED_OUT = [
    to_nic(verdict, fact, frame, note=noted(frame, 1) or noted(leaving(DATAGRAM), 1))
    for verdict, fact, frame in (
        (Verdict.NOT_IP, "IPv6", leaving(DATAGRAM, ethertype=IPV6)),
        (Verdict.NO_POD, "the node's own", leaving(DATAGRAM, source=IPv4Address("10.42.1.0"))),
        (Verdict.NO_PEER, "no peer's address", leaving(DATAGRAM, destination=STRANGER)),
        (Verdict.MALFORMED, "a wrong checksum", leaving(DATAGRAM, checksum=1)),
        (Verdict.MALFORMED, "a header shorter than a header", leaving(DATAGRAM, ihl=4)),
        (Verdict.IP_OPTIONS, "IP options", leaving(DATAGRAM, options=bytes(4))),
        (Verdict.FRAGMENT, "a fragment", leaving(DATAGRAM, fragment=MF)),
        (Verdict.PROTOCOL, "SCTP", leaving(Raw(132, bytes(16)))),
        (Verdict.TCP_CONTROL, "FIN", leaving(replace(ACK_DATA, flags=FIN | ACK))),
        (Verdict.TCP_CONTROL, "no flag", leaving(replace(ACK_DATA, flags=0))),
    )
]

FAITHFUL = noted(leaving(DATAGRAM), 1)

# What left is not what went in.
TAUGHT_NOTHING = [
    *(
        to_nic(verdict, fact, leaving(DATAGRAM), note=replace(FAITHFUL, **changes))
        for verdict, fact, changes in (
            (Verdict.STALE_EPOCH, "it went in before a withdrawal", {"epoch": EPOCH - 1}),
            (Verdict.CHANGED, "another protocol", {"protocol": 6}),
            (Verdict.CHANGED, "no hop", {"ttl": 63}),
            (Verdict.CHANGED, "two hops", {"ttl": 65}),
            (Verdict.CHANGED, "a DSCP set on the way", {"tos": 0x28}),
            (Verdict.CHANGED, "an ECN mark lost on the way", {"tos": CE}),
            (Verdict.CHANGED, "a checksum finished on the way", {"unfinished": True}),
        )
    ),
    *(
        to_nic(Verdict.OTHER_OUTER, f"another outer packet: {fact}", leaving(DATAGRAM), outer=outer)
        for fact, outer in (
            ("its source", {"source": STRANGER}),
            ("its destination", {"destination": STRANGER}),
            ("its TTL", {"ttl": 63}),
            ("its DSCP", {"tos": 0xB8}),
            ("its ECN", {"tos": CE}),
            ("DF", {"fragment": DF}),
        )
    ),
    *(
        to_nic(Verdict.OTHER_OUTER, f"another inner frame: {fact}", leaving(DATAGRAM, **changes))
        for fact, changes in (
            ("its source MAC", {"source_mac": ROUTER_MAC}),
            ("its destination MAC", {"dest_mac": ROUTER_MAC}),
        )
    ),
    *(
        to_nic(Verdict.NO_NEXT_HOP, f"another neighbour: {fact}", leaving(DATAGRAM), outer=outer)
        for fact, outer in (
            ("not the route's", {"dest_mac": BRIDGE_MAC}),
            ("not from this device", {"source_mac": BRIDGE_MAC}),
        )
    ),
    to_nic(
        Verdict.OTHER_OUTER,
        "a tunnel to a peer on our link",
        leaving(DATAGRAM),
        world=replace(UNKNOWN, peers=(replace(PEER, way=Way.DIRECT), OTHER_PEER)),
    ),
    to_nic(
        Verdict.OTHER_OUTER,
        "no tunnel to a peer behind one",
        leaving(DATAGRAM),
        frame=leaving(DATAGRAM, source_mac=NIC_MAC, dest_mac=ROUTER_MAC),
    ),
    to_nic(
        Verdict.FRAGMENT,
        "the outer packet in fragments",
        leaving(DATAGRAM),
        outer={"fragment": MF},
    ),
    to_nic(Verdict.MARKED, "a mark of someone else", leaving(DATAGRAM), mark=0x4000),
    to_nic(Verdict.MARKED, "a priority of someone else", leaving(DATAGRAM), priority=2),
    to_nic(Verdict.MARKED, "not its TOS's priority", leaving(DATAGRAM, tos=0x10)),
]

OTHERS_OUT = [
    to_nic(
        Verdict.LEARNED,
        "without a tunnel, to a peer on our link",
        leaving(DATAGRAM, destination=OTHER_REMOTE),
        frame=leaving(DATAGRAM, destination=OTHER_REMOTE, source_mac=NIC_MAC, dest_mac=ROUTER_MAC),
        world=LINKED,
        flows=record(Approval(tuple=replace(UDP_FLOW, remote=OTHER_REMOTE), out=NOW, into=None)),
    ),
    to_nic(
        Verdict.LEARNED,
        "congestion that a router marked on the way",
        leaving(DATAGRAM, tos=CE),
        note=replace(FAITHFUL, tos=ECT0),
        flows=record(Approval(tuple=UDP_FLOW, out=NOW, into=None)),
    ),
    to_nic(
        Verdict.NO_AGENT,
        "the lease has run out",
        leaving(DATAGRAM),
        world=replace(UNKNOWN, lease=-1),
    ),
    to_nic(
        Verdict.TCP_CONTROL,
        "RST notes a flow that was bypassed",
        leaving(replace(ACK_DATA, flags=RST)),
        world=only(BOTH),
        flows=record(),
        resets=frozenset([TCP_FLOW]),
    ),
    *(
        to_nic(
            Verdict.TCP_CONTROL,
            f"RST {fact} ends no connection, but the bypass",
            leaving(replace(ACK_DATA, flags=RST, sequence=sequence)),
            world=only(BOTH),
            flows=record(),
        )
        for fact, sequence in (
            ("one byte early", SEQUENCE - 1),
            ("one byte late", SEQUENCE + 1),
            ("with a guessed sequence number", 0),
        )
    ),
    to_nic(
        Verdict.TCP_CONTROL,
        "RST of a flow that was never bypassed is conntrack's alone",
        leaving(replace(ACK_DATA, flags=RST | ACK)),
        world=only(replace(BOTH, into=None)),
        flows=record(),
    ),
]

SHUT = Approval(tuple=TCP_FLOW, out=NOW, into=None, is_open=False)
RESET = replace(UNKNOWN, resets=frozenset([TCP_FLOW]))
HANDSHAKE = [
    to_nic(
        Verdict.TCP_CONTROL,
        "SYN is the first half, of a connection that is not open yet",
        leaving(replace(ACK_DATA, flags=SYN)),
        flows=record(replace(SHUT, opener=END_POD)),
    ),
    to_nic(
        Verdict.TCP_CONTROL,
        "SYN begins anew",
        leaving(replace(ACK_DATA, flags=SYN)),
        world=only(BOTH),
        flows=record(replace(SHUT, opener=END_POD)),
    ),
    to_nic(
        Verdict.TCP_CONTROL,
        "SYN with ACK is the other half",
        leaving(replace(ACK_DATA, flags=SYN | ACK)),
        world=only(Approval(tuple=TCP_FLOW, out=None, into=5, is_open=False)),
        flows=record(Approval(tuple=TCP_FLOW, out=NOW, into=5, is_open=False)),
    ),
    to_nic(
        Verdict.TCP_CONTROL,
        "SYN with ACK leaves a reset",
        leaving(replace(ACK_DATA, flags=SYN | ACK)),
        world=RESET,
        flows=record(SHUT),
    ),
    to_nic(
        Verdict.LEARNED,
        "the ACK opens",
        leaving(ACK_DATA),
        world=only(replace(SHUT, out=5, into=5)),
        flows=record(Approval(tuple=TCP_FLOW, out=NOW, into=5)),
    ),
    to_nic(
        Verdict.TCP_CONTROL,
        "SYN with FIN is no handshake",
        leaving(replace(ACK_DATA, flags=SYN | FIN)),
    ),
]

CASES = [*LEARNED_OUT, *NOT_LEARNED_OUT, *TAUGHT_NOTHING, *OTHERS_OUT, *HANDSHAKE]
