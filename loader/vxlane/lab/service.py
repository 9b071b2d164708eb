# SPDX-License-Identifier: Apache-2.0
"""A Service as a node's kube-proxy makes it: a virtual address that netfilter translates."""

from __future__ import annotations

from ipaddress import IPv4Address

from vxlane.lab import namespaces

VIRTUAL = IPv4Address("10.96.0.10")
"""Of the network that kubeadm gives Services."""

_RULES = """\
table ip service {{
 chain prerouting {{
  type nat hook prerouting priority dstnat
  ip daddr {virtual} meta l4proto {{ tcp, udp }} dnat to {backend}
 }}
}}
"""


def provide(node: str, backend: IPv4Address) -> None:
    """Have every port of VIRTUAL lead from the pods of `node` to the same port of `backend`."""
    namespaces.run(node, "nft", "-f", "-", stdin=_RULES.format(virtual=VIRTUAL, backend=backend))
