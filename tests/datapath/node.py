# SPDX-License-Identifier: Apache-2.0
"""Node: a flannel node in a chamber, as world.py describes it, and the ends of its cables outside.

    outside  pod ------ pod1 |  cni0 - routing - flannel.1 - nic |------ wire  outside
             neighbour  pod2 |             the chamber           |

The cables' far ends have no addresses: tests put frames into them and read frames from them. PEER
is behind flannel.1, OTHER_PEER on our link.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chamber import Chamber, Port, bridge, ip
from world import (
    BRIDGE,
    BRIDGE_MAC,
    MTU,
    NEIGHBOUR,
    NIC,
    NIC_MAC,
    NODE_ADDRESS,
    OTHER_PEER,
    OVERLAY,
    OVERLAY_MAC,
    PEER,
    POD,
    PORT,
    ROUTER_MAC,
    VNI,
)

from vxlane.datapath.records import Pod

CABLES = ("wire", "pod", "neighbour")


@dataclass(frozen=True, slots=True)
class Node:
    """The node, and the far ends of its cables."""

    chamber: Chamber
    outside: Chamber
    wire: Port
    pod: Port
    neighbour: Port

    def close(self) -> None:
        """Remove all of it."""
        for port in (self.wire, self.pod, self.neighbour):
            port.close()
        self.chamber.close()
        self.outside.close()


def build() -> Node:
    """Make the node, quiet and up."""
    chamber, outside = Chamber(), Chamber()
    for one in (chamber, outside):
        one.run(_be_quiet)
    chamber.run(_build, outside.tid)
    return Node(chamber, outside, *(outside.run(_open, name) for name in CABLES))


def _be_quiet() -> None:
    """Let nothing but a test's frames travel, and those by any way."""
    for family, name, value in (("ipv4", "rp_filter", 0), ("ipv6", "disable_ipv6", 1)):
        for which in ("all", "default"):
            Path(f"/proc/sys/net/{family}/conf/{which}/{name}").write_text(str(value))


def _open(device: str) -> Port:
    ip(f"link set {device} up")
    return Port(device)


def _build(outside: int) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    ip(
        "link set lo up",
        f"link add nic index {NIC} address {NIC_MAC} type veth peer name wire netns {outside}",
        f"address add {NODE_ADDRESS}/24 dev nic",
        "link set nic up",
        f"neighbour add {PEER.next_hop} lladdr {ROUTER_MAC} dev nic nud permanent",
        f"neighbour add {OTHER_PEER.next_hop} lladdr {ROUTER_MAC} dev nic nud permanent",
        f"route add {OTHER_PEER.cidr} via {OTHER_PEER.next_hop} dev nic",
        f"link add cni0 index {BRIDGE} address {BRIDGE_MAC} mtu {MTU} type bridge",
        "address add 10.42.1.1/24 dev cni0",
        "link set cni0 up",
    )
    _add_overlay()
    _add_pod(POD, "pod1", f"name pod netns {outside}")
    _add_pod(NEIGHBOUR, "pod2", f"name neighbour netns {outside}")


def _add_overlay() -> None:
    """The VXLAN device and what flannel writes for a peer."""
    gateway = PEER.cidr.network_address
    ip(
        f"link add flannel.{VNI} index {OVERLAY} address {OVERLAY_MAC} mtu {MTU} type vxlan"
        f" id {VNI} local {NODE_ADDRESS} dev nic dstport {PORT} nolearning udpcsum",
        f"address add 10.42.1.0/32 dev flannel.{VNI}",
        f"link set flannel.{VNI} up",
        f"route add {PEER.cidr} via {gateway} dev flannel.{VNI} onlink",
        f"neighbour add {gateway} lladdr {PEER.vtep_mac} dev flannel.{VNI} nud permanent",
    )
    bridge(f"fdb add {PEER.vtep_mac} dev flannel.{VNI} dst {PEER.address} self permanent")


def _add_pod(pod: Pod, device: str, peer: str) -> None:
    ip(
        f"link add {device} index {pod.ifindex} mtu {MTU} type veth"
        f" peer {peer} address {pod.mac} mtu {MTU}",
        f"link set {device} master cni0 up",
        f"neighbour add {pod.address} lladdr {pod.mac} dev cni0 nud permanent",
    )
    # Learning would let a test's frame with another's MAC move that station for the next test.
    bridge(f"link set dev {device} learning off", f"fdb add {pod.mac} dev {device} master static")
