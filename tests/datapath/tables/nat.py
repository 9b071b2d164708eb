# SPDX-License-Identifier: Apache-2.0
"""Translated flows past the kernel path: the same bytes that netfilter would make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from frames import ETHERNET, IP, TCP, UDP, Frame, Tcp, Udp
from world import (
    BRIDGE_MAC,
    NEIGHBOUR,
    NIC_MAC,
    NODE_ADDRESS,
    PEER,
    POD,
    REMOTE,
    ROUTER_MAC,
    THERE,
    Approval,
    Crossing,
    Tuple,
    World,
)

from tables import from_nic, from_pod
from tables.case import Case, only, sent
from vxlane.datapath.abi import Verdict, Way

SERVICE = IPv4Address("10.43.0.10")
BRIDGE_ADDRESS, OVERLAY_ADDRESS = IPv4Address("10.42.1.1"), IPv4Address("10.42.1.0")


def service(protocol: int, port: int, **behind: Any) -> Approval:
    """A flow of POD's to SERVICE and on to port 8443 of REMOTE; `behind`: what else it becomes."""
    flow = Tuple(POD.address, SERVICE, port, 443, protocol)
    to_backend = replace(flow, remote=REMOTE, remote_port=8443)
    # UDP is fresh for 0.9 s.
    age = 1 if protocol == TCP else 0
    return Approval(tuple=flow, behind=replace(to_backend, **behind), out=age, into=age)


SERVICE_TCP, SERVICE_UDP = service(TCP, 41000), service(UDP, 41001)
# The node's own address towards the overlay, and a port of conntrack's choice.
MASQUERADED_TCP = service(TCP, 41002, local=OVERLAY_ADDRESS, local_port=1024)
MASQUERADED_UDP = service(UDP, 41003, local=OVERLAY_ADDRESS, local_port=1025)
PORT_MOVED = service(TCP, 41004, local_port=1026)
# The pod is the high end of the key, and so it is behind netfilter.
LOWER = replace(
    service(TCP, 41008, remote=IPv4Address("10.42.2.1")),
    tuple=Tuple(POD.address, IPv4Address("10.43.0.1"), 41008, 443, TCP),
)
# REMOTE comes to a port of this node's, which is POD's, as the node itself.
NODE_PORT = Approval(
    tuple=Tuple(POD.address, BRIDGE_ADDRESS, 80, 2000, TCP),
    behind=Tuple(NODE_ADDRESS, REMOTE, 30080, 5555, TCP),
)
# Between POD and NEIGHBOUR, and the same as NEIGHBOUR has it.
LOCAL_SERVICE = Approval(
    tuple=Tuple(POD.address, SERVICE, 41005, 443, TCP),
    behind=Tuple(POD.address, NEIGHBOUR.address, 41005, 8080, TCP),
)
LOCAL_BACK = LOCAL_SERVICE.mirrored
LOCAL_UDP = Approval(
    tuple=Tuple(POD.address, SERVICE, 41006, 53, UDP),
    behind=Tuple(BRIDGE_ADDRESS, NEIGHBOUR.address, 1027, 5353, UDP),
    out=0,
    into=0,
)
SERVED_UDP = replace(
    LOCAL_UDP, behind=replace(LOCAL_UDP.tuple, remote=NEIGHBOUR.address, remote_port=5353)
)
HAIRPIN = replace(
    LOCAL_SERVICE,
    behind=Tuple(BRIDGE_ADDRESS, POD.address, 41005, 8080, TCP),
    neighbour=POD.ifindex,
)
LOCAL = only(LOCAL_SERVICE)


def transport(flow: Tuple, **changes: Any) -> Tcp | Udp:
    """What the local end of a flow sends."""
    kind = Tcp if flow.protocol == TCP else Udp
    made = kind(source=flow.local_port, dest=flow.remote_port, payload=b"so it is translated")
    return replace(made, **changes)


def pod_sends(flow: Approval, **changes: Any) -> Frame:
    """A frame of the flow's pod, by way of the node."""
    pod = POD if flow.tuple.local == POD.address else NEIGHBOUR
    target = changes.pop("dest_mac", BRIDGE_MAC)
    made = sent(transport(flow.tuple, **changes), source_mac=pod.mac, dest_mac=target)
    return replace(made, source=flow.tuple.local, destination=flow.tuple.remote)


def as_sent(frame: Frame, flow: Approval, **changes: Any) -> Frame:
    """What netfilter makes of a frame of the flow's pod."""
    due = flow.behind or flow.tuple
    ports = {"source": due.local_port, "dest": due.remote_port}
    moved = replace(frame.transport, **ports)
    made = {"source": due.local, "destination": due.remote, "transport": moved}
    return replace(frame, **{**made, **changes})


def back(flow: Tuple, **changes: Any) -> Tcp | Udp:
    """What the remote end of a flow sends."""
    ports = {"local_port": flow.remote_port, "remote_port": flow.local_port}
    return transport(replace(flow, **ports), **changes)


def peer_sends(flow: Approval, **changes: Any) -> Frame:
    """A frame of the flow's remote end, as its node puts it into the overlay."""
    due = flow.behind or flow.tuple
    made = from_nic.inner(back(due, **changes))
    return replace(made, source=due.remote, destination=due.local)


def as_got(frame: Frame, flow: Approval, **changes: Any) -> Frame:
    """What netfilter makes of a frame of the flow's remote end."""
    due = flow.tuple
    ports = {"source": due.remote_port, "dest": due.local_port}
    moved = replace(frame.transport, **ports)
    made = {"source": due.remote, "destination": due.local, "transport": moved}
    return replace(frame, **{**made, **changes})


def at_pod(frame: Frame, flow: Approval) -> Frame:
    """The same, as the pod gets it from its gateway."""
    macs = {"source_mac": BRIDGE_MAC, "dest_mac": POD.mac}
    return as_got(frame, flow, ttl=frame.ttl - 1, **macs)


def out(fact: str, flow: Approval, frame: Frame | None = None, **more: Any) -> Case:
    """A row whose frame leaves for PEER."""
    made = frame or pod_sends(flow)
    more = {"world": only(flow), "output": from_pod.wire(as_sent(made, flow)), **more}
    return from_pod.case(Verdict.NAT, fact, made, **more)


def into(fact: str, flow: Approval, frame: Frame | None = None, **more: Any) -> Case:
    """A row whose frame of PEER goes to POD."""
    made = frame or peer_sends(flow)
    more = {"world": only(flow), "output": at_pod(made, flow), **more}
    return from_nic.case(Verdict.NAT, fact, from_nic.carried(made), **more)


def both(fact: str, flow: Approval, **more: Any) -> list[Case]:
    """Two rows: out and in."""
    return [out(fact, flow, **more), into(fact, flow, **more)]


def untaken(verdict: Verdict, fact: str, flow: Approval, **more: Any) -> list[Case]:
    """Two rows: neither what the pod sends nor what it gets is bypassed."""
    changes = more.pop("changes", {})
    more = {"world": only(flow), **more}
    return [
        from_pod.case(verdict, fact, pod_sends(flow, **changes), **more),
        from_nic.case(verdict, fact, from_nic.carried(peer_sends(flow, **changes)), **more),
    ]


def linked(world: World) -> World:
    """The same, and PEER is on our link."""
    return replace(world, peers=(replace(PEER, way=Way.DIRECT),))


FLOWS = {
    "TCP of a Service": SERVICE_TCP,
    "UDP of a Service": SERVICE_UDP,
    "TCP of a Service, masqueraded": MASQUERADED_TCP,
    "UDP of a Service, masqueraded": MASQUERADED_UDP,
    "TCP whose source port was moved": PORT_MOVED,
    "TCP of a node port": NODE_PORT,
    "TCP of a Service, whose addresses are lower": LOWER,
}
THROUGH_TUNNEL = [row for fact, flow in FLOWS.items() for row in both(fact, flow)]

ON_LINK = [
    row
    for fact, flow in FLOWS.items()
    for frame, answer in [
        (pod_sends(flow), replace(peer_sends(flow), source_mac=ROUTER_MAC, dest_mac=NIC_MAC))
    ]
    for row in (
        out(
            f"{fact}, to a peer on our link",
            flow,
            world=linked(only(flow)),
            output=as_sent(frame, flow, ttl=frame.ttl - 1),
        ),
        from_nic.case(
            Verdict.NAT,
            f"{fact}, from a peer on our link",
            answer,
            world=linked(only(flow)),
            output=at_pod(answer, flow),
        ),
    )
]


def switched(fact: str, flow: Approval, frame: Frame, **more: Any) -> Case:
    """A row whose frame goes to the other pod of this node."""
    sender = POD if flow.tuple.local == POD.address else NEIGHBOUR
    receiver = NEIGHBOUR if sender is POD else POD
    macs = {"source_mac": flow.there.source_mac, "dest_mac": receiver.mac}
    output = as_sent(frame, flow, ttl=frame.ttl - flow.there.is_routed, **macs)
    more = {"world": only(flow), "output": output, **more}
    return replace(
        from_pod.case(Verdict.NAT, fact, frame, **more),
        ifindex=sender.ifindex,
    )


def answered(fact: str, flow: Approval, **more: Any) -> Case:
    """A row of what the other pod answers, by the record of `flow`."""
    back, changes = flow.mirrored, more.pop("changes", {})
    target = BRIDGE_MAC if back.there.by_gateway else POD.mac
    frame = replace(pod_sends(back, dest_mac=target, **changes), ttl=more.pop("ttl", 64))
    return switched(fact, back, frame, **{"world": only(flow), **more})


ROUTED = replace(LOCAL_SERVICE, there=replace(THERE, is_routed=True))
ROUTED_BACK = Crossing(is_routed=True, by_gateway=True, source_mac=ROUTER_MAC)
TO_NEIGHBOUR = [
    switched("TCP of a Service to a pod of this node", LOCAL_SERVICE, pod_sends(LOCAL_SERVICE)),
    switched("masqueraded UDP to a pod of this node", LOCAL_UDP, pod_sends(LOCAL_UDP)),
    switched("the same, routed rather than bridged", ROUTED, pod_sends(ROUTED)),
    switched(
        "a bridged packet's TTL stands still, translated too",
        LOCAL_SERVICE,
        replace(pod_sends(LOCAL_SERVICE), ttl=1),
    ),
    switched("the last TTL that is routed", ROUTED, replace(pod_sends(ROUTED), ttl=2)),
    *(
        switched(
            f"UDP of a Service that is not answered, by the record of {whose}",
            SERVED_UDP,
            pod_sends(SERVED_UDP),
            world=only(owner),
        )
        for flow in [replace(SERVED_UDP, into=None)]
        for whose, owner in (("its client", flow), ("the Service's pod", flow.mirrored))
    ),
    answered("the answer of a Service's pod, straight to its neighbour", LOCAL_SERVICE),
    answered("the answer to masqueraded UDP", LOCAL_UDP),
    answered("an answer that crosses otherwise", replace(LOCAL_SERVICE, back=ROUTED_BACK)),
    answered(
        "the last TTL of an answer that is bridged, where what it answers is routed",
        ROUTED,
        ttl=1,
    ),
    answered("TCP of a Service, whose pod was seen first", LOCAL_BACK),
]


def summing_up(frame: Frame, flow: Approval, *, inbound: bool) -> list[Frame]:
    """Frames whose checksum comes to nothing: once it is translated, and half way to there."""
    due = as_got(frame, flow) if inbound else as_sent(frame, flow)
    ports = {"source": frame.transport.source, "dest": frame.transport.dest}
    half = replace(due, transport=replace(due.transport, **ports))
    made = []
    for one in (due, half):
        empty = replace(one, transport=replace(one.transport, payload=bytes(2)))
        place = ETHERNET + IP + (16 if one.transport.protocol == TCP else 6)
        payload = bytes(empty)[place : place + 2]
        made.append(replace(frame, transport=replace(frame.transport, payload=payload)))
    return made


def sums(flows: Iterable[Approval]) -> list[Case]:
    """Rows of checksums that come to nothing: of UDP 0xffff stands for it, of TCP 0."""
    rows = []
    for flow in flows:
        kind = "TCP" if flow.tuple.protocol == TCP else "UDP"
        sends, gets = pod_sends(flow), peer_sends(flow)
        facts = f"a {kind} checksum that comes to nothing", f"a {kind} checksum that does half way"
        for fact, frame in zip(facts, summing_up(sends, flow, inbound=False), strict=True):
            rows.append(out(fact, flow, frame))
        for fact, frame in zip(facts, summing_up(gets, flow, inbound=True), strict=True):
            rows.append(into(fact, flow, frame))
    return rows


CHECKSUMS = [
    *sums([MASQUERADED_TCP, MASQUERADED_UDP]),
    out("UDP without a checksum has none", SERVICE_UDP, pod_sends(SERVICE_UDP, checksum=0)),
    into("UDP without a checksum gets none", SERVICE_UDP, peer_sends(SERVICE_UDP, checksum=0)),
    switched(
        "UDP without a checksum to a pod of this node",
        LOCAL_UDP,
        pod_sends(LOCAL_UDP, checksum=0),
    ),
]

CASES = [*THROUGH_TUNNEL, *ON_LINK, *TO_NEIGHBOUR, *CHECKSUMS]
