# SPDX-License-Identifier: Apache-2.0
"""Reads network devices into frozen dataclasses: a NIC, a bridge, a pod's veth.

Devices are read by vxlane's own netlink, because pyroute2 takes thirty times as long. A node has a
device for each pod, and each new pod waits until two are read. `Devices` owns a pyroute2 handle and
a netlink socket in this thread's network namespace. Other modules use them, too.
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

from vxlane.errors import KernelError
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import (
    NetlinkSocket,
    Request,
    attribute,
    attributes,
    string_attribute,
    text_of,
)

_GONE = frozenset({errno.ENODEV, errno.EINVAL, errno.ENOENT, errno.ERANGE})

_NO_STATISTICS = attribute(rt.IFLA_EXT_MASK, rt.U32.pack(rt.RTEXT_FILTER_SKIP_STATS))


@contextmanager
def explained(operation: str, advice: str = "") -> Iterator[None]:
    """Turn pyroute2's NetlinkError in the block into a KernelError that names `operation`."""
    try:
        yield
    except NetlinkError as error:
        raise KernelError(operation, error.code, advice) from error


@dataclass(frozen=True, slots=True)
class Device:
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
    """The kind of its root qdisc: "noqueue", "tbf" ..."""
    is_restricted: bool
    """Whether it is a bridge port that is isolated from others, that is locked, or whose addresses
    the bridge does not learn."""
    filters_vlans: bool
    """Whether it is a bridge with VLAN filtering."""
    calls_iptables: bool = False
    """Whether it is a bridge whose packets pass netfilter even where the sysctl says no
    (nf_call_iptables)."""
    gso_size: int = 0
    """gso_ipv4_max_size: GSO packets of this many bytes or more are cut; 0: before Linux 6.3."""
    gso_segs: int = 0
    """gso_max_segs: GSO packets of more segments are cut (gso_features_check() in
    net/core/dev.c)."""


class Devices:
    """Reads devices and their addresses."""

    def __init__(self) -> None:
        self.netlink = IPRoute()
        self.socket = NetlinkSocket()

    def close(self) -> None:
        """Close the netlink sockets."""
        self.netlink.close()
        self.socket.close()

    def all(self) -> dict[int, Device]:
        """Every device by ifindex."""
        found = map(_device, self.socket.dump(_question(0, b"")))
        return {device.index: device for device in found}

    def of_kind(self, kind: str) -> list[Device]:
        """The devices of one kind, such as "vxlan", oldest first. The kernel selects them."""
        kinds = string_attribute(rt.IFLA_INFO_KIND, kind)
        bodies = self.socket.dump(_question(0, attribute(rt.IFLA_LINKINFO, kinds)))
        # The kernel returns all devices if it does not know the kind: its module is not loaded.
        found = (device for device in map(_device, bodies) if device.kind == kind)
        return sorted(found, key=lambda device: device.index)

    def by_index(self, index: int) -> Device | None:
        """The device of that ifindex, if there is one."""
        return self._get(_question(index, b""), f"interface {index}")

    def by_name(self, name: str) -> Device | None:
        """The device of that name, if there is one."""
        wanted = string_attribute(rt.IFLA_IFNAME, name)
        return self._get(_question(0, wanted), name)

    def addresses(self, index: int = 0) -> dict[IPv4Interface, int]:
        """IPv4 address -> ifindex of its device; of one device or of all, in the kernel's order."""
        return dict(self._held(index))

    def holder(self, address: IPv4Address, *, before: int = 0) -> Device | None:
        """The device that has `address`. None: no device has it.

        Of several it is the one that had it `before` (ifindex), or else one that is up. kube-proxy
        gives addresses of nodes to its kube-ipvs0 too, which is always down.
        """
        held = [index for interface, index in self._held() if interface.ip == address]
        devices = filter(None, map(self.by_index, held))
        return min(devices, key=lambda it: (it.index != before, not it.is_up), default=None)

    def _held(self, index: int = 0) -> list[tuple[IPv4Interface, int]]:
        chosen = {"index": index} if index else {}
        with explained("list addresses"):
            return [
                (IPv4Interface((_local(message), message["prefixlen"])), message["index"])
                for message in self.netlink.get_addr(family=socket.AF_INET, **chosen)
            ]

    def _get(self, question: Request, shown: str) -> Device | None:
        (answer,) = self.socket.request([question])
        if isinstance(answer, bytes):
            return _device(answer)
        if answer in _GONE:
            return None
        raise KernelError(f"read device {shown}", answer)


def _local(message: Any) -> str:
    # IFA_ADDRESS is the other end on a point-to-point device, IFA_LOCAL always ours.
    return str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))


def _question(index: int, wanted: bytes) -> Request:
    body = rt.IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    return Request(rt.RTM_GETLINK, body + _NO_STATISTICS + wanted)


def _device(body: bytes) -> Device:
    """The device of one RTM_NEWLINK."""
    _, _, index, flags, _ = rt.IFINFOMSG.unpack_from(body)
    found = attributes(body, rt.IFINFOMSG.size)
    info = attributes(found.get(rt.IFLA_LINKINFO, b""), 0)
    kind = text_of(info.get(rt.IFLA_INFO_KIND, b""))
    # The numbers of the attributes inside depend on the kind.
    bridge = attributes(info.get(rt.IFLA_INFO_DATA, b""), 0) if kind == "bridge" else {}
    is_port = text_of(info.get(rt.IFLA_INFO_SLAVE_KIND, b"")) == "bridge"
    port = attributes(info.get(rt.IFLA_INFO_SLAVE_DATA, b""), 0) if is_port else {}
    return Device(
        index=index,
        name=text_of(found.get(rt.IFLA_IFNAME, b"")),
        kind=kind,
        mac=found.get(rt.IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found, rt.IFLA_MTU),
        master=_number(found, rt.IFLA_MASTER),
        is_up=bool(flags & rt.IFF_UP),
        qdisc=text_of(found.get(rt.IFLA_QDISC, b"")),
        is_restricted=_is_restricted(port),
        filters_vlans=any(bridge.get(rt.IFLA_BR_VLAN_FILTERING, b"")),
        calls_iptables=any(bridge.get(rt.IFLA_BR_NF_CALL_IPTABLES, b"")),
        gso_size=_number(found, rt.IFLA_GSO_IPV4_MAX_SIZE),
        gso_segs=_number(found, rt.IFLA_GSO_MAX_SEGS),
    )


def _is_restricted(port: dict[int, bytes]) -> bool:
    """By the attributes of a bridge port. Frames may leave by such a port and not come in, or come
    in and not leave.
    """
    restricting = (rt.IFLA_BRPORT_ISOLATED, rt.IFLA_BRPORT_LOCKED)
    return any(any(port.get(kind, b"")) for kind in restricting) or not any(
        port.get(rt.IFLA_BRPORT_LEARNING, b"\1")
    )


def _number(found: dict[int, bytes], kind: int) -> int:
    return int(rt.U32.unpack(found[kind])[0]) if kind in found else 0
