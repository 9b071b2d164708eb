# SPDX-License-Identifier: Apache-2.0
"""Translated flows between two pods of this node that stay on the kernel path, or go back to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frames import SYN, Frame
from world import NEIGHBOUR, NEIGHBOUR_VETH, POD, VETH, Approval

from tables import from_pod
from tables.case import Case, only
from tables.nat import (
    HAIRPIN,
    LOCAL,
    LOCAL_BACK,
    LOCAL_SERVICE,
    LOCAL_UDP,
    ROUTED,
    ROUTED_BACK,
    SERVED_UDP,
    pod_sends,
)
from vxlane.datapath.abi import Guard, Verdict


def local(verdict: Verdict, fact: str, frame: Frame, flow: Approval, **more: Any) -> Case:
    """A row of a translated flow between pods of this node."""
    return from_pod.case(verdict, fact, frame, **{"world": only(flow), **more})


NEIGHBOURLY = only(LOCAL_SERVICE)
CASES = [
    local(
        Verdict.OTHER_MAC,
        "to a Service, straight to the neighbour that is behind it",
        pod_sends(LOCAL_SERVICE, dest_mac=NEIGHBOUR.mac),
        LOCAL_SERVICE,
    ),
    local(
        Verdict.OTHER_MAC,
        "a neighbour's answer by the node",
        pod_sends(LOCAL_BACK),
        LOCAL_SERVICE,
        ifindex=NEIGHBOUR.ifindex,
    ),
    local(Verdict.OTHER_MAC, "to itself by a Service", pod_sends(HAIRPIN), HAIRPIN),
    local(
        Verdict.TTL,
        "routed to a pod of this node, with TTL 1",
        replace(pod_sends(ROUTED), ttl=1),
        ROUTED,
    ),
    *(
        local(
            Verdict.FLOW_WITHDRAWN,
            f"{fact}, approved for an earlier {which}",
            frame,
            replace(LOCAL_SERVICE, **change),
            ifindex=ifindex,
        )
        for which, change in (
            ("pod", {"ifindex": VETH + 100}),
            ("neighbour", {"neighbour": NEIGHBOUR_VETH + 100}),
        )
        for fact, frame, ifindex in (
            ("to a Service's pod", pod_sends(LOCAL_SERVICE), VETH),
            ("of a Service's pod", pod_sends(LOCAL_BACK, dest_mac=POD.mac), NEIGHBOUR_VETH),
        )
    ),
    *(
        local(
            Verdict.FLOW_HALF,
            f"{fact}, of a flow that {who} was seen to send first",
            frame,
            owner,
            ifindex=ifindex,
        )
        for fact, frame, ifindex, flow in (
            (
                "masqueraded UDP that is not answered",
                pod_sends(LOCAL_UDP),
                VETH,
                replace(LOCAL_UDP, into=None),
            ),
            (
                "UDP of a Service's pod that was not asked",
                pod_sends(SERVED_UDP.mirrored, dest_mac=POD.mac),
                NEIGHBOUR_VETH,
                replace(SERVED_UDP, out=None),
            ),
        )
        for who, owner in (("the client", flow), ("the Service's pod", flow.mirrored))
    ),
    local(
        Verdict.TTL,
        "an answer that is routed, with TTL 1",
        replace(pod_sends(LOCAL_BACK), ttl=1),
        replace(LOCAL_SERVICE, back=ROUTED_BACK),
        ifindex=NEIGHBOUR_VETH,
    ),
    local(
        Verdict.NO_POD,
        "to a Service's pod that is gone",
        pod_sends(LOCAL_SERVICE),
        LOCAL_SERVICE,
        world=replace(NEIGHBOURLY, pods=(POD,)),
    ),
    local(
        Verdict.NO_POD,
        "to a Service's pod on another bridge",
        pod_sends(LOCAL_SERVICE),
        LOCAL_SERVICE,
        world=replace(NEIGHBOURLY, pods=(POD, replace(NEIGHBOUR, bridge=99))),
    ),
    local(
        Verdict.GUARDED,
        "to a Service's pod that is guarded",
        pod_sends(LOCAL_UDP),
        LOCAL_UDP,
        world=replace(only(LOCAL_UDP), pods=(POD, replace(NEIGHBOUR, guard=Guard.TO_POD))),
    ),
    local(
        Verdict.JUDGED,
        "to a Service's pod whose packets are judged",
        pod_sends(LOCAL_UDP),
        LOCAL_UDP,
        world=replace(only(LOCAL_UDP), pods=(POD, replace(NEIGHBOUR, guard=Guard.JUDGED))),
    ),
    local(
        Verdict.TOO_BIG,
        "to a Service's pod, above its MTU",
        pod_sends(LOCAL_UDP),
        LOCAL_UDP,
        world=replace(only(LOCAL_UDP), pods=(POD, replace(NEIGHBOUR, mtu=40))),
    ),
    local(
        Verdict.JUDGED,
        "to a Service's pod, and something acts on every translated packet",
        pod_sends(LOCAL_SERVICE),
        LOCAL_SERVICE,
        world=replace(NEIGHBOURLY, judged_nat=True),
    ),
    from_pod.case(
        Verdict.TCP_CONTROL,
        "SYN of a Service's pod of this node begins no translated flow",
        pod_sends(LOCAL_BACK, flags=SYN, dest_mac=POD.mac),
        ifindex=NEIGHBOUR.ifindex,
        world=LOCAL,
    ),
]
