# SPDX-License-Identifier: Apache-2.0
"""Gathers the facts of a flow from the pinned maps and from what the kernel says.

Asks the agent for nothing: what it reads is there without an agent too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import cached_property

from vxlane.datapath.maps import Maps
from vxlane.datapath.records import Flow, IPAddress, IPNetwork, Peer, Tuple
from vxlane.host.connections import Connection
from vxlane.util.five_tuple import FiveTuple
from vxlane.why.ends import Question
from vxlane.why.facts import Facts
from vxlane.why.kernel import Kernel


class Reader:
    """Reads facts by `maps` and what the `kernel` says."""

    def __init__(
        self,
        maps: Maps,
        kernel: Kernel,
        own_cidr: IPNetwork | None = None,
        names: Mapping[IPAddress, str] | None = None,
    ) -> None:
        """`own_cidr`: of this node's pods; None: not known. `names`: of pods."""
        self.maps = maps
        self.kernel = kernel
        self.names = names or {}
        self._own_cidr = own_cidr
        self.pods = maps.pods()
        self.settings = maps.settings()

    def flows(self, question: Question) -> list[tuple[Tuple, Connection | None]]:
        """The flows that are meant, as the asked sender's packets are: those with a record, and
        those that conntrack follows.
        """
        found: dict[Tuple, Connection | None] = {}
        # A record is its local pod's. Of two pods of this node the sender's tells all.
        is_reversed = question.source.address not in self.pods
        for flow in self._records(question, is_reversed=is_reversed):
            forms = flow.tuple, flow.behind
            sent, behind = map(_reversed, forms) if is_reversed else forms
            is_live = flow.seen_out or flow.seen_in
            if is_live and (question.is_about(sent) or question.is_about(behind)):
                found.setdefault(sent)
        ends = question.source.address, question.destination.address
        for began, answered in (ends, ends[::-1]):
            for connection in self.kernel.connections_between(began, answered):
                for form in (connection.original, connection.reply):
                    if question.is_about(form):
                        found[tuple_of(form)] = connection
        return list(found.items())

    def _records(self, question: Question, *, is_reversed: bool) -> Iterable[Flow]:
        """Those that ports name; all between the two addresses where that finds none."""
        named = [_reversed(sent) if is_reversed else tuple_of(sent) for sent in question.tuples()]
        lookups = (self.maps.flow, self.maps.flow_behind)
        found = [flow for flow in (look(each) for each in named for look in lookups) if flow]
        source, destination = question.source.address, question.destination.address
        ends = (destination, source) if is_reversed else (source, destination)
        return found or self.maps.flows_between(*ends)

    def facts(self, sent: FiveTuple, connection: Connection | None = None) -> Facts:
        """What is known of the flow with that 5-tuple, as its local pod has it."""
        flow = tuple_of(sent)
        record = self.maps.flow(flow)
        connection = connection or self.kernel.connection(flow)
        behind = record.behind if record else _behind(flow, connection)
        pod = self.pods.get(flow.local)
        far_peer = self.maps.peer_of(behind.remote)
        receiver = self.pods.get(behind.remote)
        return Facts(
            now=time.monotonic_ns(),
            settings=self.settings,
            tuple=flow,
            behind=behind,
            pod=pod,
            has_veth=pod is not None and self.maps.has_veth(pod.ifindex),
            mac=self.kernel.mac(pod.ifindex) if pod else None,
            peer=self.maps.peer_of(flow.remote),
            far_peer=far_peer,
            neighbour=self.pods.get(flow.remote),
            receiver=receiver if receiver and self.maps.has_veth(receiver.ifindex) else None,
            record=record,
            entering=self.maps.flow_behind(behind),
            connection=connection,
            is_of_this_node=self._is_of_this_node(flow.remote),
            node=None if far_peer else self._nodes.get(behind.remote),
            own_device=self._own_device(behind.remote),
            next_hop=self._strayed(far_peer),
            qdiscs={
                each.ifindex: self.kernel.qdisc(each.ifindex)
                for each in (pod, receiver)
                if each and each.guard
            },
        )

    @cached_property
    def _nodes(self) -> dict[IPAddress, Peer]:
        """Peers by the addresses of their nodes themselves."""
        return {peer.address: peer for peer in self.maps.peers().values()}

    def _is_of_this_node(self, address: IPAddress) -> bool:
        return self._own_cidr is not None and address in self._own_cidr

    def _own_device(self, address: IPAddress) -> str:
        # IPVS gives a device the addresses of Services, which are not the node's own.
        is_ours = address == self.settings.address or self._is_of_this_node(address)
        return self.kernel.holder(address) if is_ours and address not in self.pods else ""

    def _strayed(self, peer: Peer | None) -> str:
        if peer is None or not peer.ifindex:
            return ""
        return self.kernel.strayed(peer, self.settings.address)


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
    return tuple_of(flow.reversed)


def tuple_of(flow: FiveTuple) -> Tuple:
    """As the maps hold it."""
    return Tuple(flow.local, flow.remote, flow.local_port, flow.remote_port, flow.protocol)
