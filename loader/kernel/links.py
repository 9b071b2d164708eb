"""Network devices as frozen dataclasses: what is known of a NIC, a bridge, a pod's veth.

Owns the pyroute2 handle of this thread's network namespace.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from vxlane.loader.errors import KernelError

_IFF_UP = 1
_GONE = frozenset({errno.ENODEV, errno.EINVAL, errno.ENOENT})


@contextmanager
def explained(operation: str, advice: str = "") -> Iterator[None]:
    """Raise what pyroute2 says of a refusal as KernelError."""
    try:
        yield
    except NetlinkError as error:
        raise KernelError(operation, error.code, advice) from error


@dataclass(frozen=True, slots=True)
class Link:
    """One network device."""

    index: int
    name: str
    kind: str
    """"veth", "bridge", "vxlan" ...; empty for hardware."""
    mac: str
    mtu: int
    master: int
    """Ifindex of the bridge (or bond) it is a port of; 0: none."""
    is_up: bool
    qdisc: str
    """Of its root: "noqueue", "tbf" ..."""
    is_isolated: bool
    """A bridge port that may not reach other isolated ports."""
    filters_vlans: bool
    """A bridge with VLAN filtering on."""


class Links:
    """Reads devices and their addresses."""

    def __init__(self) -> None:
        self.netlink = IPRoute()

    def close(self) -> None:
        """Close the netlink socket."""
        self.netlink.close()

    def all(self) -> dict[int, Link]:
        """Every device by ifindex."""
        with explained("list devices"):
            return {message["index"]: _link(message) for message in self.netlink.get_links()}

    def by_index(self, index: int) -> Link | None:
        """The device of that ifindex, if there is one."""
        return self._get(index=index)

    def by_name(self, name: str) -> Link | None:
        """The device of that name, if there is one."""
        return self._get(ifname=name)

    def addresses(self, index: int = 0) -> dict[IPv4Interface, int]:
        """IPv4 addresses with their device's ifindex, of one device or of all, in their order."""
        chosen = {"index": index} if index else {}
        with explained("list addresses"):
            return {
                IPv4Interface((_local(message), message["prefixlen"])): message["index"]
                for message in self.netlink.get_addr(family=socket.AF_INET, **chosen)
            }

    def holder(self, address: IPv4Address) -> Link | None:
        """The device that has `address`, if one has."""
        for interface, index in self.addresses().items():
            if interface.ip == address:
                return self.by_index(index)
        return None

    def _get(self, **which: int | str) -> Link | None:
        try:
            return _link(self.netlink.link("get", **which)[0])
        except NetlinkError as error:
            if error.code in _GONE:
                return None
            raise KernelError(f"look at device {which}", error.code) from error


def _local(message: Any) -> str:
    # IFA_ADDRESS is the other end on a point-to-point device, IFA_LOCAL always ours.
    return str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))


def _link(message: Any) -> Link:
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=message.get(("linkinfo", "kind")) or "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU"),
        master=message.get_attr("IFLA_MASTER") or 0,
        is_up=bool(message["flags"] & _IFF_UP),
        qdisc=message.get_attr("IFLA_QDISC") or "",
        is_isolated=bool(message.get(("linkinfo", "slave_data", "isolated"))),
        filters_vlans=bool(message.get(("linkinfo", "data", "br_vlan_filtering"))),
    )
