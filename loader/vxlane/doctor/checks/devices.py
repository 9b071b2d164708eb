# SPDX-License-Identifier: Apache-2.0
"""The devices that pods' packets cross: MTU, offloads, others' programs, shapers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from vxlane.doctor.facts import Facts, Link, Peers, Program
from vxlane.doctor.findings import Finding, fail, ok, warn
from vxlane.host.vtep import OVERHEAD
from vxlane.mechanisms.devices import QUEUES

_GRO = "rx-gro"
_WANTED = {
    "tx-udp_tnl-segmentation": "the kernel cuts super-packets of the tunnel itself",
    "tx-generic-segmentation": "no super-packet leaves the node, so each segment is sent alone",
    _GRO: "packets come in one by one, and each is handled alone",
    "tx-checksum-ip-generic": "the kernel sums up each packet itself",
    "tx-scatter-gather": "each packet is copied before it is sent",
}
"""Offloads of a NIC that bulk traffic lives by, and what happens without them."""


def vtep(facts: Facts) -> Iterator[Finding]:
    """There is a VXLAN device, and it is up."""
    found = facts.links.vtep
    if found is None:
        meaning = "this node has no overlay: neither the agent in mode own nor flanneld has made it"
        fix = "systemctl restart vxlane    # mode own; in mode adopt: flanneld"
        yield fail("vtep", "flannel has no VXLAN device", meaning, fix)
    elif not found.device.is_up:
        meaning = "the kernel path to and from other nodes drops every packet"
        yield fail("vtep", f"{found.name} is down", meaning, f"ip link set {found.name} up")
    else:
        yield ok("vtep", f"{found.name} is up")


def mtu(facts: Facts) -> Iterator[Finding]:
    """From the pod to the NIC, and on the way to each peer, each MTU leaves room for the next."""
    links = facts.links
    if links.vtep is None or links.nic is None:
        return
    vtep, narrow = links.vtep.device.mtu, _narrowest_way(facts.peers)
    underlay = min(links.nic.device.mtu, narrow[0]) if narrow else links.nic.device.mtu
    room = underlay - OVERHEAD
    chain = f"{links.nic.name} {links.nic.device.mtu}, {links.vtep.name} {vtep}"
    inner = (*links.bridges, *links.veths)
    largest = max([links.pod_mtu, *(link.device.mtu for link in inner)])
    fix = f"ip link set {links.vtep.name} mtu {room}"
    if vtep > room:
        way = f"; the way to {narrow[1]} takes {narrow[0]}" if narrow else ""
        meaning = "pods' full packets leave no room for headers, and are fragmented or dropped"
        yield fail("mtu", f"{chain}, and no more than {room} fits{way}", meaning, fix)
    elif vtep < largest <= room:
        meaning = "pods send larger packets than it takes: each such connection begins with a loss"
        yield warn("mtu", f"{chain}, and pods have up to {largest}", meaning, fix)
    elif large := [link for link in inner if link.device.mtu > vtep]:
        yield from (_too_large(link, vtep) for link in large)
    elif links.pod_mtu > vtep:
        says = f"subnet.env gives new pods {links.pod_mtu}, and {links.vtep.name} has {vtep}"
        meaning = "new pods send larger packets than the overlay takes"
        yield warn("mtu", says, meaning, "systemctl restart vxlane    # or flanneld")
    else:
        yield ok("mtu", f"{chain}, pods {largest or 'not known'}")


def _narrowest_way(peers: Peers) -> tuple[int, IPv4Address] | None:
    """The smallest MTU that the route to a peer has of its own, in bytes, and that peer."""
    ways = [(way.path_mtu, address) for address, way in peers.ways.items() if way.path_mtu]
    return min(ways, default=None)


def _too_large(link: Link, most: int) -> Finding:
    says = f"{link.name} has {link.device.mtu}, and the overlay takes {most}"
    meaning = (
        "pods behind it send larger packets than that: each such connection begins with a loss"
    )
    return warn("mtu", says, meaning, f"ip link set {link.name} mtu {most}")


def offloads(facts: Facts) -> Iterator[Finding]:
    """The NIC does for the kernel what it can."""
    nic, features = facts.links.nic, facts.links.features
    if nic is None:
        return
    # What other devices carry was joined before, so they have it off.
    wanted = [name for name in _WANTED if name != _GRO or not nic.device.kind]
    off = [name for name in wanted if name in features and not features[name].is_on]
    # One that is fixed is the hardware's choice, and no fault.
    faults = [name for name in off if features[name].is_changeable]
    for name in faults:
        fix = f"ethtool -K {nic.name} {name} on"
        yield warn("offloads", f"{name} is off on {nic.name}", f"{_WANTED[name]}", fix)
    if not faults:
        yield ok("offloads", f"{nic.name} does what it can" + _without(off))


def _without(lacks: list[str]) -> str:
    return f", which is without {', '.join(lacks)}" if lacks else ""


def programs(facts: Facts) -> Iterator[Finding]:
    """No other program or filter is on the path."""
    is_clean = True
    for link in facts.links.all:
        for program in link.programs:
            is_clean = False
            yield _foreign(facts, link, program)
    if is_clean:
        yield ok("tc-programs", "no other program or filter is on the path")


def _foreign(facts: Facts, link: Link, program: Program) -> Finding:
    what = "XDP" if program.hook == "xdp" else "tc"
    says = f"{what} program {program.name or '(no name)'} at {program.hook} of {link.name}"
    if link is facts.links.nic:
        meaning = "bypassed packets meet it too; vxlane's own stand behind it"
    elif link in facts.links.veths:
        meaning = (
            "that pod's packets in this direction are left to the kernel path, so that it sees them"
        )
    else:
        meaning = "packets of all pods are left to the kernel path, so that it sees them"
    if program.hook == "xdp":
        fix = f"ip link set dev {link.name} xdp off"
    elif program.priority:
        fix = f"tc filter del dev {link.name} {program.hook} pref {program.priority}"
    elif program.link:
        fix = f"bpftool link detach id {program.link}"
    else:
        fix = f"bpftool net detach tcx_{program.hook} dev {link.name}"
    return warn("tc-programs", says, meaning, fix)


def shapers(facts: Facts) -> Iterator[Finding]:
    """No qdisc on the path shapes, delays or drops."""
    is_clean = True
    for link in facts.links.all:
        if link.device.qdisc in QUEUES:
            continue
        is_clean = False
        if link is facts.links.nic:
            meaning = "bypassed packets meet it too, so it only slows what it is meant to"
        elif link in facts.links.veths:
            meaning = "that pod's incoming packets are left to the kernel path, which shapes them"
        else:
            meaning = "packets of all pods are left to the kernel path, which shapes them"
        fix = f"tc qdisc del dev {link.name} root"
        yield warn("shapers", f"qdisc {link.device.qdisc} on {link.name}", meaning, fix)
    if is_clean:
        yield ok("shapers", "no qdisc that shapes")


def macs(facts: Facts) -> Iterator[Finding]:
    """Each pod sends from the MAC that the agent was told."""
    strange = [end for end in facts.pods if end.mac != end.told]
    for end in strange:
        says = f"{end.ifname} of pod {end.pod} has {end.mac}, and the agent was told {end.told}"
        meaning = (
            "what the pod sends is left to the kernel path, or dropped with --strict (verdict"
            " spoofed_mac); give the MAC back, or make the pod anew"
        )
        back = f"ip link set {end.ifname} address {end.told}"
        fix = [f"nsenter --net={end.namespace} {back}"] if end.namespace else []
        yield warn("pod-macs", says, meaning, *fix)
    if not strange:
        yield ok("pod-macs", "pods send from the MACs that the agent was told")


def port(facts: Facts) -> Iterator[Finding]:
    """The overlay's UDP port is its own."""
    links = facts.links
    own = next((t for t in links.tunnels if links.vtep and t.name == links.vtep.name), None)
    if own is None:
        return
    others = [t for t in links.tunnels if t.port == own.port and t.name != own.name]
    for other in others:
        says = f"{other.name} (VNI {other.vni}) uses UDP port {own.port} too"
        meaning = (
            f"two overlays share a port: packets of {other.name} take the kernel path (verdict"
            " foreign_vni), and one that collects metadata takes ours away; remove it or give it"
            " another port"
        )
        yield warn("port", says, meaning, f"ip link del {other.name}")
    if not others:
        yield ok("port", f"UDP port {own.port} is {own.name}'s alone")
