# SPDX-License-Identifier: Apache-2.0
"""A blackhole route for this node's pod CIDR (--ip-blackhole-route).

It is for pods with a route each (/32, as Calico makes them). Without it, packets for an address
that no pod has follow the default route out of the cluster. A bridge with the pod CIDR brings a
route to it already, and needs no other.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Network

from pyroute2.netlink.exceptions import NetlinkError

from vxlane.errors import KernelError
from vxlane.host.devices import Devices


def add(devices: Devices, cidr: IPv4Network) -> bool:
    """Make the route unless `cidr` has one. True: it was made."""
    return _route(devices, "add", cidr, is_fine=errno.EEXIST)


def remove(devices: Devices, cidr: IPv4Network) -> bool:
    """Remove the route. True: it was there."""
    return _route(devices, "del", cidr, is_fine=errno.ESRCH)


def _route(devices: Devices, verb: str, cidr: IPv4Network, *, is_fine: int) -> bool:
    try:
        devices.netlink.route(verb, dst=str(cidr), type="blackhole")
    except NetlinkError as error:
        if error.code == is_fine:
            return False
        raise KernelError(f"{verb} blackhole route {cidr}", error.code) from error
    return True
