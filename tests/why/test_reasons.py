# SPDX-License-Identifier: Apache-2.0
"""What the sentences of `vxlane why` say of the flow that they are about."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from flowfacts import HERE, NODE, PEER, PEER_NODE, POD, THERE, UDP, VIRTUAL, facts_of, tuple_to

from vxlane.datapath.abi import Verdict
from vxlane.datapath.records import Tuple
from vxlane.why.reasons import Agent, Context, explain

STREAM = tuple_to(THERE)
GATEWAY = IPv4Address("10.42.1.1")
PODS_ONLY = "Only packets between addresses of pods are bypassed"
LEARNED = "A flow to a NodePort or a hostPort is learned from its first packets"


def reason_of(verdict, facts, *, is_leaving=True):
    """The sentence and the command."""
    return explain(verdict, Context(facts, is_leaving, Agent(), "device{}".format))


def test_a_flush_by_hand_withdraws_too():
    """Nothing on the node need have changed since a flow was approved."""
    reason, _ = reason_of(Verdict.FLOW_WITHDRAWN, facts_of(STREAM, record={"epoch": 2}))
    assert "somebody ran 'vxlane flows flush'" in reason
    assert "rules, routes, peers, IPsec or the NIC changed" in reason
    earlier, _ = reason_of(Verdict.FLOW_WITHDRAWN, facts_of(STREAM, record={"ifindex": 99}))
    assert earlier == "it was approved for an earlier pod with this address; wait"


def test_a_masqueraded_flow_keeps_its_other_end():
    """So no translation of that end is waited for; of a Service's it is."""
    outside, service = tuple_to(VIRTUAL), tuple_to(THERE, port=8080)
    masqueraded = facts_of(outside, replace(outside, local=NODE), record=False)
    reason, _ = reason_of(Verdict.NO_PEER, masqueraded)
    assert reason.startswith(f"{VIRTUAL} is in no peer's pod CIDR")
    reason, _ = reason_of(Verdict.NO_PEER, facts_of(outside, service, record=False))
    assert reason.startswith(f"netfilter translates {VIRTUAL}")


def to_node(remote, behind=None, **known):
    """The facts of a new flow to a node itself."""
    return facts_of(
        tuple_to(remote), behind, record=False, is_of_this_node=remote == GATEWAY, **known
    )


def test_a_peers_node_is_no_pod():
    """Its own address is known, and what it is of is said, not that a node is missing."""
    facts = to_node(PEER_NODE, node=PEER)
    known = f"192.168.77.12 is the address of the node of {PEER.cidr} itself, and of its"
    for is_leaving in (True, False):
        reason = reason_of(Verdict.NO_PEER, facts, is_leaving=is_leaving)
        assert reason == (f"{known} hostNetwork pods. {PODS_ONLY}", "vxlane peers")


@pytest.mark.parametrize(
    ("remote", "device", "words"),
    [
        (GATEWAY, f"device{POD.bridge}", f"on device{POD.bridge}, its pods' gateway"),
        (NODE, "eth0", "on eth0"),
    ],
)
def test_this_node_is_no_pod(remote, device, words):
    """The bridge's address is not one that a pod could have, and the NIC's is not outside."""
    facts = to_node(remote, own_device=device)
    known = f"{remote} is this node's own address {words}. {PODS_ONLY}"
    command = f"ip address show dev {device}"
    assert reason_of(Verdict.NO_PEER, facts) == (f"{known}. {LEARNED}", command)
    assert reason_of(Verdict.NO_PEER, facts, is_leaving=False) == (known, command)


def test_a_service_that_leads_to_a_node():
    """As the API server's does: the end is named, and no learning is promised."""
    behind = Tuple(HERE, NODE, 40000, 6443, UDP)
    reason, _ = reason_of(Verdict.NO_PEER, to_node(VIRTUAL, behind, own_device="eth0"))
    assert reason == f"192.168.77.11 is this node's own address on eth0. {PODS_ONLY}"
