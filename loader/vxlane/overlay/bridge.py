# SPDX-License-Identifier: Apache-2.0
"""The pods' bridge when this node's pod CIDR has changed.

The bridge plugin gives its bridge the gateway's address only once. When the node gets another pod
CIDR, the plugin refuses every new pod: "cni0 already has an IP address different from ...". Pods
can't use an address outside the pod CIDR any more, since no peer has a route to it.
"""

from __future__ import annotations

import logging
from ipaddress import IPv4Network

from vxlane.host.devices import Devices, explained

log = logging.getLogger(__name__)

BRIDGE = "cni0"
"""The flannel CNI plugin's name for it."""


def remove_stale_addresses(devices: Devices, cidr: IPv4Network, network: IPv4Network) -> str:
    """Remove the bridge's addresses of `network` that are outside `cidr`, if it has no ports.

    Returns a sentence with the reason and the command to run, if it has ports. Otherwise empty.
    """
    bridge = devices.by_name(BRIDGE)
    if bridge is None or bridge.kind != "bridge":
        return ""
    stale = [a for a in devices.addresses(bridge.index) if a.ip in network and a.ip not in cidr]
    if stale and any(device.master == bridge.index for device in devices.all().values()):
        commands = "; ".join(f"ip addr del {address} dev {BRIDGE}" for address in stale)
        return (
            f"new pods fail: {BRIDGE} has an address outside the pod CIDR {cidr}, and pods that "
            f"were made before it changed; delete these pods, then: {commands}"
        )
    for address in stale:
        with explained(f"remove {address} from {BRIDGE}"):
            devices.netlink.addr(
                "del",
                index=bridge.index,
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
            )
        log.info("remove address %s of %s: the pod CIDR is %s now", address, BRIDGE, cidr)
    return ""
