# SPDX-License-Identifier: Apache-2.0
"""What the kernel itself says of a flow: conntrack, the route to a peer, the node's own addresses,
a pod's own interface.

Reads in the network namespace of the thread that made it. A pod and a peer are asked about once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from ipaddress import IPv4Address

from vxlane.datapath.records import IPAddress, Peer, Tuple
from vxlane.host.connections import Connection, ConnectionReader
from vxlane.host.devices import Devices
from vxlane.host.nexthops import Query, resolve
from vxlane.host.veths import far_end, root_qdisc
from vxlane.netlink.socket import NetlinkSocket
from vxlane.util.names import device_name


class Kernel:
    """Reads, and changes nothing."""

    def __init__(self, port: int) -> None:
        """`port`: of VXLAN, for a rule may route by it."""
        self._port = port
        self._netlink = NetlinkSocket()
        self._conntrack = ConnectionReader()
        self._macs: dict[int, str | None] = {}
        self._qdiscs: dict[int, str] = {}
        self._routes: dict[IPAddress, str] = {}
        self._holders: dict[IPAddress, int] | None = None

    def close(self) -> None:
        """Close the sockets."""
        self._netlink.close()
        self._conntrack.close()

    def connection(self, sent: Tuple) -> Connection | None:
        """The entry of packets of that 5-tuple."""
        return self._conntrack.find(sent)

    def connections_between(
        self, source: IPv4Address, destination: IPv4Address
    ) -> Iterable[Connection]:
        """What `source` began with `destination`."""
        return self._conntrack.between(source, destination)

    def connections(self) -> Iterable[Connection]:
        """Everything that conntrack follows."""
        return self._conntrack.all()

    def idle_seconds(self, connection: Connection) -> int | None:
        """Since netfilter last saw a packet of it; None: not known."""
        return self._conntrack.idle_seconds(connection)

    def mac(self, veth: int) -> str | None:
        """Of the pod's end of a veth; None: it is gone."""
        if veth not in self._macs:
            end = far_end(self._netlink, veth)
            self._macs[veth] = end.mac if end else None
        return self._macs[veth]

    def qdisc(self, veth: int) -> str:
        """The kind of the qdisc at a veth's root, by which it shapes what the pod is sent."""
        if veth not in self._qdiscs:
            self._qdiscs[veth] = root_qdisc(self._netlink, veth)
        return self._qdiscs[veth]

    def holder(self, address: IPAddress) -> str:
        """The device by which this node itself has `address`; empty: it has not."""
        if self._holders is None:
            with contextlib.closing(Devices()) as devices:
                found = devices.addresses().items()
                self._holders = {interface.ip: index for interface, index in found}
        index = self._holders.get(address)
        return device_name(index) if index else ""

    def strayed(self, peer: Peer, source: IPAddress) -> str:
        """How the route from `source` to a peer differs from what the programs know, in words."""
        if peer.address not in self._routes:
            self._routes[peer.address] = self._compared(peer, source)
        return self._routes[peer.address]

    def _compared(self, peer: Peer, source: IPAddress) -> str:
        address = peer.address
        if not (isinstance(address, IPv4Address) and isinstance(source, IPv4Address)):
            return ""  # no agent has written this node's address yet
        hop = resolve(self._netlink, [address], Query(source, self._port))[address]
        if hop.reason or (hop.ifindex, hop.neighbour) == (peer.ifindex, peer.next_hop):
            return hop.reason
        now = f"{hop.neighbour} on {device_name(hop.ifindex)}"
        known = f"{peer.next_hop} on {device_name(peer.ifindex)}"
        return f"the route to it leads to {now}, and the programs know {known}"
