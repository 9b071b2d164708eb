# SPDX-License-Identifier: Apache-2.0
"""What of a node's traffic is slow now, and why: sentences for `vxlane top`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vxlane.datapath.abi import Verdict, VerdictKind

Json = dict[str, Any]

MUCH = 0.05
"""Of all packets: what is less is no reason that a person could feel."""
BUSY = 10.0
"""Packets a second."""
MOSTLY_LEARNING = 0.3
"""Short connections need about that much."""

WHY = {
    Verdict.NO_POD: "the local address is no accelerated pod's; see 'vxlane pods'",
    Verdict.NO_AGENT: "no agent keeps the maps; start it",
    Verdict.NO_NEXT_HOP: "the packets left by another neighbour than the route names",
    Verdict.GUARDED: "the pod has a shaper, another program or isolation",
    Verdict.JUDGED: "a rule or device acts on every packet; see 'vxlane status'",
    Verdict.MARKED: "the packets carry a firewall mark, or a priority that a rule gave them",
    Verdict.MALFORMED: "lengths or checksum of the header do not agree",
    Verdict.BIG_TCP: "BIG TCP to another node, a Service or a smaller veth; see gso_ipv4_max_size",
    Verdict.IP_OPTIONS: "the packets have IP options",
    Verdict.FRAGMENT: "fragments; compare the pods' MTU with the underlay's less 50",
    Verdict.TTL: "the packets would expire here; look for a loop",
    Verdict.PROTOCOL: "neither TCP, UDP nor ICMP echo",
    Verdict.TOO_BIG: "bigger than the way allows; see the MTUs of pods and peers",
    Verdict.GSO: "UDP super-packets on their way in",
    Verdict.NO_CHECKSUM: "UDP without a checksum in a tunnel that has one",
    Verdict.ECN: "the underlay is congested, and the inner header can't carry the mark",
    Verdict.OTHER_INTERFACE: "sent from the address of another interface of the container",
    Verdict.OTHER_MAC: "for another neighbour: routed or bridged elsewhere",
    Verdict.VXLAN_HEADER: "flags that plain VXLAN does not have",
    Verdict.FOREIGN_VNI: "another overlay on this port",
    Verdict.REFUSED: "the kernel would make no room for headers",
    Verdict.TCP_CONTROL: "connections open and close all the time: they are short",
    Verdict.NO_STAMP: "no entrance has seen the packets",
    Verdict.STALE_EPOCH: "approvals were withdrawn while the packets were on the way",
    Verdict.TRANSLATED: "Services' flows that are not learned yet, or left alone",
    Verdict.CHANGED: "the kernel path changes the packets, as a rule for TTL or DSCP does",
    Verdict.OTHER_OUTER: "something changes the tunnel: NAT, IPsec, options of flannel.1",
    Verdict.FLOW_UNKNOWN: "nothing has come out of the kernel path: new flows, or one-way",
    Verdict.FLOW_HALF: "only one direction has come out of the kernel path",
    Verdict.FLOW_AGED: "approved too long ago; raise --revalidate if this stays",
    Verdict.FLOW_REHASHED: "sockets were given new hashes",
    Verdict.FLOW_WITHDRAWN: "rules, routes, peers or devices change, or somebody flushes",
    Verdict.MAP_FULL: "the map of flows is full; raise --max-flows",
}
"""Why packets with this verdict are not bypassed; docs/verdicts has more of each."""

_BY_LABEL = {verdict.label: verdict for verdict in Verdict}


def slow(document: Json) -> list[Json]:
    """What is slow in a document of rates, the gravest first: each **what** and **why**."""
    return [{"what": what, "why": why} for what, why in _found(document)]


def _found(document: Json) -> Iterator[tuple[str, str]]:
    if not document["bypassing"]:
        yield "everything", "no packet is bypassed; see 'vxlane status'"
    for row in document["verdicts"]:
        if row["kind"] == VerdictKind.IDENTITY.value:
            yield _named(row), "failed an identity check; see docs/verdicts"
    for peer in document["peers"]:
        if not peer["reachable"]:
            yield f"peer {peer['name']}", "there is no usable way to it now"
    for row in document["verdicts"]:
        if not row["share"] or row["packets_per_second"] < BUSY:
            continue
        if row["kind"] == VerdictKind.KERNEL_PATH.value and row["share"] >= MUCH:
            yield _named(row), WHY[_BY_LABEL[row["verdict"]]]
        elif row["kind"] == VerdictKind.LEARNED.value and row["share"] >= MOSTLY_LEARNING:
            yield _named(row), "flows are short: what is learned is used for few packets"
    for pod in document["pods"]:
        sent, received = (pod[f"{way}_packets_per_second"] for way in ("tx", "rx"))
        if pod["guarded"] and sent + received >= BUSY:
            yield f"pod {pod['name']}", f"left alone: {' '.join(pod['guarded'])}; see 'vxlane pods'"


def _named(row: Json) -> str:
    share = f" ({row['share']:.0%})" if row["share"] else ""
    return f"{row['program']} {row['verdict']}{share}"
