# SPDX-License-Identifier: Apache-2.0
"""A node without vxlane: the overlay that flannel makes, by plain commands.

It shares no code with the agent, so a wrong belief of vxlane about flannel does not hide on both
ends of a wire. Every name and value was read off nodes that ran an unmodified flanneld. Uses ip,
bridge and iptables only.
"""

from __future__ import annotations

from collections.abc import Iterable

from vxlane.lab import namespaces
from vxlane.lab.plan import POD_NETWORK, LabNode
from vxlane.lab.underlay import NIC, ip

VNI = 1
PORT = 8472
DEVICE = f"flannel.{VNI}"
MTU = 1500 - (20 + 8 + 8 + 14)
"""The NIC's, less the outer IPv4, UDP and VXLAN headers and the inner Ethernet header."""

_RULES = """\
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s {net} -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d {net} -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {comment} -j RETURN
-A FLANNEL-POSTRTG -s {net} -d {net} {comment} -j RETURN
-A FLANNEL-POSTRTG -s {net} ! -d 224.0.0.0/4 {comment} -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {net} -d {pod} {comment} -j RETURN
-A FLANNEL-POSTRTG ! -s {net} -d {net} {comment} -j MASQUERADE --random-fully
COMMIT
"""


def make_overlay(node: LabNode, peers: Iterable[LabNode]) -> None:
    """flannel.1, its peers, the rules and subnet.env of `node`."""
    ip(
        node.name,
        f"link add {DEVICE} address {node.vtep_mac} mtu {MTU} type vxlan id {VNI} "
        f"local {node.address} dev {NIC} dstport {PORT} nolearning",
    )
    ip(node.name, f"address add {node.pod_cidr.network_address}/32 dev {DEVICE}")
    ip(node.name, f"link set {DEVICE} up")
    for peer in peers:
        _add_peer(node.name, peer)
    rules = _RULES.format(
        net=POD_NETWORK, pod=node.pod_cidr, comment='-m comment --comment "flanneld masq"'
    )
    namespaces.run(node.name, "iptables-restore", "--noflush", "--wait", stdin=rules)
    (node.directory / "subnet.env").write_text(
        f"FLANNEL_NETWORK={POD_NETWORK}\n"
        f"FLANNEL_SUBNET={node.pod_cidr[1]}/{node.pod_cidr.prefixlen}\n"
        f"FLANNEL_MTU={MTU}\n"
        "FLANNEL_IPMASQ=true\n",
        encoding="ascii",
    )


def _add_peer(namespace: str, peer: LabNode) -> None:
    """One neighbour, one FDB entry, and at last the route, which needs both."""
    gateway = peer.pod_cidr.network_address
    ip(namespace, f"neighbour replace {gateway} lladdr {peer.vtep_mac} dev {DEVICE} nud permanent")
    fdb = f"fdb replace {peer.vtep_mac} dev {DEVICE} dst {peer.address} self permanent"
    namespaces.run(None, "bridge", "-n", namespace, *fdb.split())
    ip(namespace, f"route replace {peer.pod_cidr} via {gateway} dev {DEVICE} onlink")
