# SPDX-License-Identifier: Apache-2.0
"""The path `flowtable`: netfilter's short cut for forwarded connections (nft(8), FLOWTABLES)."""

from __future__ import annotations

from vxlane.bench.witness import OVERLAY
from vxlane.lab import namespaces
from vxlane.lab.lab import Lab
from vxlane.lab.underlay import NIC

_RULES = """\
table inet bench {{
 flowtable fast {{
  hook ingress priority filter
  devices = {{ {devices} }}
 }}
 chain forward {{
  type filter hook forward priority filter + 1; policy accept
  meta l4proto {{ tcp, udp }} flow add @fast
 }}
}}
"""


def install(lab: Lab) -> bool:
    """Have the nodes of `lab` offload connections. False: this kernel has no flowtables."""
    for node in lab.nodes:
        veths = [pod.veth for pod in lab.pods if pod.node == node.name]
        rules = _RULES.format(devices=", ".join([NIC, OVERLAY, *veths]))
        if namespaces.run(node.name, "nft", "-f", "-", stdin=rules, check=False).returncode:
            return False
    return True
