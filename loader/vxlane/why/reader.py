# SPDX-License-Identifier: Apache-2.0
"""Reads the facts of a flow: pinned maps, conntrack, routes, and the pod's own interface.

Owns the handles and nothing else. Changes nothing, and asks the agent for nothing: what it reads is
there without an agent too.
"""

from __future__ import annotations

import time
from ipaddress import IPv4Address
from types import TracebackType
from typing import TYPE_CHECKING

from vxlane.datapath.maps import Maps
from vxlane.datapath.records import IPAddress, Peer, Pod, Tuple
from vxlane.host.connections import Connection, ConnectionReader, reverse
from vxlane.host.nexthops import Query, resolve
from vxlane.host.veths import far_end
from vxlane.netlink.socket import NetlinkSocket
from vxlane.util.five_tuple import FiveTuple
from vxlane.util.names import device_name
from vxlane.why.ends import Question
from vxlane.why.facts import Facts

if TYPE_CHECKING:
    from typing_extensions import Self  # typing's own is 3.11's

_PORT = 8472
"""flannel's: a rule may route by it."""


class Reader:
    """Reads facts by `maps`, in this thread's network namespace."""

    def __init__(self, maps: Maps) -> None:
        self.maps = maps
        self.pods = maps.pods()
        self.settings = maps.settings()
        self._netlink = NetlinkSocket()
        self.conntrack = ConnectionReader()
        self._routes: dict[IPAddress, str] = {}
        self._macs: dict[int, str | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._netlink.close()
        self.conntrack.close()

    def flows(self, question: Question) -> list[tuple[Tuple, Connection | None]]:
        """The flows that are meant, as the asked sender's packets are: those with a record, and
        those that conntrack follows.
        """
        ends = question.source.address, question.destination.address
        found: dict[Tuple, Connection | None] = {}
        # A record is its local pod's. Of two pods of this node the sender's tells all.
        is_reversed = ends[0] not in self.pods
        for flow in self.maps.flows_between(*(ends[::-1] if is_reversed else ends)):
            forms = flow.tuple, flow.behind
            sent, behind = map(_reversed, forms) if is_reversed else forms
            is_live = flow.seen_out or flow.seen_in
            if is_live and (question.is_about(sent) or question.is_about(behind)):
                found.setdefault(sent)
        for began, answered in (ends, ends[::-1]):
            for connection in self.conntrack.between(began, answered):
                for form in (connection.original, connection.reply):
                    if question.is_about(form):
                        found[tuple_of(form)] = connection
        return list(found.items())

    def facts(self, sent: FiveTuple, connection: Connection | None = None) -> Facts:
        """What is known of the flow with that 5-tuple, as its local pod has it."""
        flow = tuple_of(sent)
        record = self.maps.flow(flow)
        connection = connection or self.conntrack.find(flow)
        behind = record.behind if record else _behind(flow, connection)
        pod = self._pod(flow.local)
        far_peer = self.maps.peer_of(behind.remote)
        receiver = self._pod(behind.remote)
        return Facts(
            now=time.monotonic_ns(),
            settings=self.settings,
            tuple=flow,
            behind=behind,
            pod=pod,
            has_veth=pod is not None and self.maps.has_veth(pod.ifindex),
            mac=self._mac(pod),
            peer=self.maps.peer_of(flow.remote),
            far_peer=far_peer,
            neighbour=self._pod(flow.remote),
            receiver=receiver if receiver and self.maps.has_veth(receiver.ifindex) else None,
            record=record,
            entering=self.maps.flow_behind(behind),
            connection=connection,
            next_hop=self._strayed(far_peer),
        )

    def _pod(self, address: IPAddress) -> Pod | None:
        return self.pods.get(address)

    def _mac(self, pod: Pod | None) -> str | None:
        if pod is None:
            return None
        if pod.ifindex not in self._macs:
            end = far_end(self._netlink, pod.ifindex)
            self._macs[pod.ifindex] = end.mac if end else None
        return self._macs[pod.ifindex]

    def _strayed(self, peer: Peer | None) -> str:
        if peer is None or not peer.ifindex:
            return ""
        if peer.address not in self._routes:
            self._routes[peer.address] = self._compared(peer)
        return self._routes[peer.address]

    def _compared(self, peer: Peer) -> str:
        assert isinstance(peer.address, IPv4Address)
        assert isinstance(self.settings.address, IPv4Address)
        query = Query(self.settings.address, _PORT)
        hop = resolve(self._netlink, [peer.address], query)[peer.address]
        if hop.reason:
            return hop.reason
        if (hop.ifindex, hop.neighbour) == (peer.ifindex, peer.next_hop):
            return ""
        now = f"{hop.neighbour} on {device_name(hop.ifindex)}"
        known = f"{peer.next_hop} on {device_name(peer.ifindex)}"
        return f"the route to {peer.address} leads to {now}, and the programs know {known}"


def _behind(flow: Tuple, connection: Connection | None) -> Tuple:
    """The flow behind netfilter, as conntrack says."""
    if connection:
        for sent, answered in (
            (connection.original, connection.reply),
            (connection.reply, connection.original),
        ):
            if tuple_of(sent) == flow:
                return _reversed(answered)
    return flow


def _reversed(flow: FiveTuple) -> Tuple:
    return tuple_of(reverse(flow))


def tuple_of(flow: FiveTuple) -> Tuple:
    """As the maps hold it."""
    return Tuple(flow.local, flow.remote, flow.local_port, flow.remote_port, flow.protocol)
