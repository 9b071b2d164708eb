# SPDX-License-Identifier: Apache-2.0
"""The wire between nodes: a bridge in a namespace of its own, and each node's eth0 on it.

Devices are made inside the namespaces and never moved, so the machine's own network does not see a
lab. Uses ip only.
"""

from __future__ import annotations

from vxlane.lab import namespaces
from vxlane.lab.plan import UNDERLAY, LabNode, switch_name

NIC = "eth0"
"""A node's device on the underlay."""

_QUIET = (
    # Only what the nodes send crosses the wire: no filter (if this kernel has one for bridges),
    # and no IPv6 of the switch's own.
    "net.bridge.bridge-nf-call-iptables=0",
    "net.ipv6.conf.all.disable_ipv6=1",
    "net.ipv6.conf.default.disable_ipv6=1",
)


def make_switch(lab: str) -> None:
    """The switch's namespace with its bridge `br0`, up."""
    switch = switch_name(lab)
    namespaces.create(switch)
    ip(switch, "link add br0 type bridge")
    namespaces.run(switch, "sysctl", "-eqw", *_QUIET)
    ip(switch, "link set br0 up")


def make_node(lab: str, node: LabNode) -> None:
    """A node's namespace, with its address on eth0; the switch's end is named after the node."""
    namespaces.create(node.name)
    plug(lab, node.name, port=node.name.removeprefix(f"{lab}-"))
    ip(node.name, f"address add {node.address}/{UNDERLAY.prefixlen} dev {NIC}")


def plug(lab: str, namespace: str, *, port: str) -> None:
    """A cable from the switch's `port` to eth0 of `namespace`, up at both ends."""
    switch = switch_name(lab)
    ip(switch, f"link add {port} type veth peer name {NIC} netns {namespace}")
    ip(switch, f"link set {port} master br0 up")
    ip(namespace, f"link set {NIC} up")


def ip(namespace: str, command: str) -> str:
    """Run one `ip` command, given as words, on `namespace`; what it printed."""
    return namespaces.run(None, "ip", "-n", namespace, *command.split()).stdout
