# SPDX-License-Identifier: Apache-2.0
"""What a flow's next packet meets, and what keeps the flow on the kernel path."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flowfacts import (
    BESIDE,
    ICMP,
    NEIGHBOUR,
    NODE,
    NOW,
    OTHER_MAC,
    PEER,
    POD,
    SECOND,
    SETTINGS,
    TCP,
    THERE,
    UDP,
    VIRTUAL,
    connection_of,
    facts_of,
    tuple_to,
)

from vxlane.datapath.abi import Guard, Verdict, Way
from vxlane.datapath.records import Tuple
from vxlane.why import decide
from vxlane.why.facts import Packet
from vxlane.why.reasons import REASONS, Agent, Context, explain

BOTH_WAYS = "TCP is bypassed in both directions or in none"
FILTER_OR_PORT = (
    "another program's filter, or a bridge port that is isolated, locked or not learning"
)
OUTSIDE_ECHO = tuple_to(VIRTUAL, ICMP)
STREAM, DATAGRAM, ECHO = (tuple_to(THERE, protocol) for protocol in (TCP, UDP, ICMP))
BESIDE_STREAM, BESIDE_DATAGRAM = tuple_to(BESIDE), tuple_to(BESIDE, UDP)
SERVED, SERVED_DATAGRAM = tuple_to(VIRTUAL), tuple_to(VIRTUAL, UDP)
BACKEND, BACKEND_DATAGRAM = tuple_to(THERE, port=8080), tuple_to(THERE, UDP, port=8080)
BACKEND_BESIDE = tuple_to(BESIDE, port=8080)
MASKED = Tuple(NODE, THERE, 1024, 8080, UDP)
MASKED_STREAM = replace(MASKED, protocol=TCP)
OVER = replace(SETTINGS, lease_until=NOW)
JUDGED, JUDGED_NAT = replace(SETTINGS, judged=True), replace(SETTINGS, judged_nat=True)


def guarded(guard, pod=POD):
    """The pod with a guard."""
    return replace(pod, guard=guard)


def at(**ages):
    """Changes of a record: each half's age in seconds."""
    return {name: NOW - int(age * SECOND) for name, age in ages.items()}


LEAVING = {
    "bypassed: tunnel": (facts_of(STREAM), "encapsulated"),
    "bypassed: direct": (facts_of(STREAM, record={"way": Way.DIRECT}), "routed"),
    "bypassed: one node": (facts_of(BESIDE_STREAM), "switched"),
    "bypassed: Service": (facts_of(SERVED, BACKEND), "nat"),
    "bypassed: Service of one node": (facts_of(SERVED, BACKEND_BESIDE), "nat"),
    "bypassed: one-way UDP": (facts_of(DATAGRAM, record={"seen_in": 0}), "encapsulated"),
    "bypassed: echo": (facts_of(ECHO), "encapsulated"),
    "lease is over": (facts_of(STREAM, settings=OVER), "no_agent"),
    "lease before pod": (facts_of(STREAM, settings=OVER, pod=None), "no_agent"),
    "no pod": (facts_of(STREAM, pod=None), "no_pod"),
    "veth is gone": (facts_of(STREAM, has_veth=False), "no_pod"),
    "another MAC": (facts_of(STREAM, mac=OTHER_MAC), "spoofed_mac"),
    "MAC is not known": (facts_of(STREAM, mac=None), "encapsulated"),
    "another protocol": (facts_of(tuple_to(THERE, 132), record=False), "protocol"),
    "all judged": (facts_of(STREAM, settings=JUDGED), "judged"),
    "pod judged": (facts_of(STREAM, pod=guarded(Guard.JUDGED)), "judged"),
    "judged before guarded": (
        facts_of(STREAM, pod=guarded(Guard.JUDGED | Guard.FROM_POD)),
        "judged",
    ),
    "guarded": (facts_of(DATAGRAM, pod=guarded(Guard.FROM_POD)), "guarded"),
    "guarded the other way": (facts_of(DATAGRAM, pod=guarded(Guard.TO_POD)), "encapsulated"),
    "TCP guarded the other way": (facts_of(STREAM, pod=guarded(Guard.TO_POD)), "guarded"),
    "a new connection": (facts_of(STREAM, record=False), "tcp_control"),
    "a closed connection": (
        facts_of(STREAM, record={"seen_out": 0, "seen_in": 0}),
        "tcp_control",
    ),
    "TIME_WAIT": (facts_of(STREAM, connection=connection_of(STREAM, "time_wait")), "tcp_control"),
    "half closed": (
        facts_of(
            STREAM,
            record={"seen_out": 0, "seen_in": 0, "is_open": False},
            connection=connection_of(STREAM, "fin_wait"),
        ),
        "flow_half",
    ),
    "a new datagram": (facts_of(DATAGRAM, record=False), "flow_unknown"),
    "a new datagram of one node": (facts_of(BESIDE_DATAGRAM, record=False), "flow_unknown"),
    "another bridge": (
        facts_of(BESIDE_DATAGRAM, record=False, neighbour=replace(NEIGHBOUR, bridge=9)),
        "no_peer",
    ),
    "outside": (facts_of(SERVED_DATAGRAM, record=False), "no_peer"),
    "translated flows judged": (facts_of(SERVED, BACKEND, settings=JUDGED_NAT), "judged"),
    "others are not": (facts_of(STREAM, settings=JUDGED_NAT), "encapsulated"),
    "earlier epoch": (facts_of(STREAM, record={"epoch": 2}), "flow_withdrawn"),
    "earlier pod": (facts_of(STREAM, record={"ifindex": 99}), "flow_withdrawn"),
    "TCP without answers": (facts_of(STREAM, record={"seen_in": 0}), "flow_half"),
    "UDP only in": (facts_of(DATAGRAM, record={"seen_out": 0}), "flow_half"),
    "echo without answers": (facts_of(ECHO, record={"seen_in": 0}), "flow_half"),
    "TCP is not open": (facts_of(STREAM, record={"is_open": False}), "flow_half"),
    "translation is not confirmed": (
        facts_of(SERVED_DATAGRAM, BACKEND_DATAGRAM, record={"is_confirmed": False}),
        "flow_half",
    ),
    "masqueraded UDP without answers": (
        facts_of(SERVED_DATAGRAM, MASKED, record={"seen_in": 0}),
        "flow_half",
    ),
    "TCP aged": (facts_of(STREAM, record=at(seen_out=30, seen_in=1)), "flow_aged"),
    "TCP not quite": (facts_of(STREAM, record=at(seen_out=29.9, seen_in=29.9)), "encapsulated"),
    "TCP aged the other way": (facts_of(STREAM, record=at(seen_out=1, seen_in=30)), "flow_aged"),
    "UDP aged": (facts_of(DATAGRAM, record=at(seen_out=10, seen_in=1)), "flow_aged"),
    "UDP aged the other way": (
        facts_of(DATAGRAM, record=at(seen_out=1, seen_in=99)),
        "encapsulated",
    ),
    "translated UDP aged": (
        facts_of(SERVED_DATAGRAM, BACKEND_DATAGRAM, record=at(seen_out=0.9)),
        "flow_aged",
    ),
    "translated TCP has time": (facts_of(SERVED, BACKEND, record=at(seen_out=29)), "nat"),
    "receiver is gone": (facts_of(BESIDE_STREAM, receiver=None), "no_pod"),
    "receiver on another bridge": (
        facts_of(BESIDE_STREAM, receiver=replace(NEIGHBOUR, bridge=9)),
        "no_pod",
    ),
    "receiver judged": (
        facts_of(BESIDE_STREAM, receiver=guarded(Guard.JUDGED, NEIGHBOUR)),
        "judged",
    ),
    "receiver is another pod": (facts_of(BESIDE_DATAGRAM, record={"nic": 99}), "flow_withdrawn"),
    "receiver guarded": (
        facts_of(BESIDE_DATAGRAM, receiver=guarded(Guard.TO_POD, NEIGHBOUR)),
        "guarded",
    ),
}

ARRIVING = {
    "bypassed: tunnel": (facts_of(STREAM), "decapsulated"),
    "bypassed: direct": (facts_of(STREAM, far_peer=replace(PEER, way=Way.DIRECT)), "routed"),
    "bypassed: Service": (facts_of(SERVED, BACKEND), "nat"),
    "lease is over": (facts_of(STREAM, settings=OVER), "no_agent"),
    "lease is over, direct": (
        facts_of(STREAM, settings=OVER, far_peer=replace(PEER, way=Way.DIRECT)),
        "not_overlay",
    ),
    "no peer": (facts_of(STREAM, far_peer=None), "no_peer"),
    "no pod": (facts_of(STREAM, pod=None), "no_pod"),
    "veth is gone": (facts_of(STREAM, has_veth=False), "no_pod"),
    "veth is gone, unknown": (facts_of(STREAM, record=False, has_veth=False), "tcp_control"),
    "no pod, direct": (
        facts_of(STREAM, pod=None, far_peer=replace(PEER, way=Way.DIRECT)),
        "not_overlay",
    ),
    "masqueraded, and not learned": (
        facts_of(SERVED, MASKED_STREAM, entering=None),
        "no_pod",
    ),
    "judged": (facts_of(STREAM, pod=guarded(Guard.JUDGED)), "judged"),
    "guarded": (facts_of(DATAGRAM, pod=guarded(Guard.TO_POD)), "guarded"),
    "guarded the other way": (facts_of(DATAGRAM, pod=guarded(Guard.FROM_POD)), "decapsulated"),
    "TCP guarded the other way": (facts_of(STREAM, pod=guarded(Guard.FROM_POD)), "guarded"),
    "a new connection": (facts_of(STREAM, record=False), "tcp_control"),
    "a new datagram": (facts_of(DATAGRAM, record=False), "flow_unknown"),
    "another protocol": (facts_of(tuple_to(THERE, 132), record=False), "protocol"),
    "UDP only out": (facts_of(DATAGRAM, record={"seen_in": 0}), "flow_half"),
    "UDP only in": (facts_of(DATAGRAM, record={"seen_out": 0}), "decapsulated"),
    "UDP aged": (facts_of(DATAGRAM, record=at(seen_out=1, seen_in=10)), "flow_aged"),
    "earlier epoch": (facts_of(STREAM, record={"epoch": 2}), "flow_withdrawn"),
}

LASTING = {
    "nothing": (facts_of(DATAGRAM, record=False), "flow_unknown"),
    "no way to the peer": (
        facts_of(DATAGRAM, record=False, far_peer=replace(PEER, ifindex=0)),
        "no_next_hop",
    ),
    "another way to the peer": (
        facts_of(DATAGRAM, record=False, next_hop="the route leads elsewhere"),
        "no_next_hop",
    ),
    "a bypassed flow has its way": (facts_of(STREAM, next_hop="elsewhere"), "encapsulated"),
    "translated flows judged": (
        facts_of(SERVED, BACKEND, record=False, settings=JUDGED_NAT),
        "judged",
    ),
    "an echo to a Service": (facts_of(tuple_to(VIRTUAL, ICMP), ECHO, record=False), "changed"),
    "an echo to the outside, masqueraded": (
        facts_of(OUTSIDE_ECHO, replace(OUTSIDE_ECHO, local=NODE), record=False),
        "no_peer",
    ),
    "receiver guarded": (
        facts_of(BESIDE_STREAM, record=False, receiver=guarded(Guard.FROM_POD, NEIGHBOUR)),
        "guarded",
    ),
    "receiver judged": (
        facts_of(BESIDE_DATAGRAM, record=False, receiver=guarded(Guard.JUDGED, NEIGHBOUR)),
        "judged",
    ),
    "a connection to the outside": (facts_of(SERVED, record=False), "no_peer"),
    "a connection to a Service": (facts_of(SERVED, BACKEND, record=False), "tcp_control"),
}


@pytest.mark.parametrize(("facts", "verdict"), LEAVING.values(), ids=LEAVING)
def test_leaving(facts, verdict):
    """Each step of from_pod gives its verdict, in the order of the steps."""
    assert decide.leaving(facts).label == verdict


@pytest.mark.parametrize(("facts", "verdict"), ARRIVING.values(), ids=ARRIVING)
def test_arriving(facts, verdict):
    """Each step of from_nic gives its verdict, in the order of the steps."""
    assert decide.arriving(facts).label == verdict


@pytest.mark.parametrize(("facts", "verdict"), LASTING.values(), ids=LASTING)
def test_what_lasts(facts, verdict):
    """Behind a verdict that passes, what keeps the flow on the kernel path is found."""
    found = decide.obstacle(facts, decide.leaving(facts), is_leaving=True)
    assert found.label == verdict


def test_what_lasts_on_the_way_back():
    """Answers to a masqueraded echo come from no peer, as the echo went to none."""
    facts, verdict = LASTING["an echo to the outside, masqueraded"]
    found = decide.obstacle(facts, decide.arriving(facts), is_leaving=False)
    assert found.label == verdict


def test_every_verdict_that_is_given_has_a_reason():
    """The reasons are of exactly the verdicts that these tables give."""
    given = {verdict for table in (LEAVING, ARRIVING, LASTING) for _, verdict in table.values()}
    assert given == {verdict.label for verdict in REASONS}


@pytest.mark.parametrize("is_leaving", [True, False])
def test_reasons_are_sentences_without_gaps(is_leaving):
    """Each reason and each command can be made of the facts that lead to it."""
    tables = [LEAVING, LASTING] if is_leaving else [ARRIVING]
    for facts, _ in (row for table in tables for row in table.values()):
        verdict = (decide.leaving if is_leaving else decide.arriving)(facts)
        verdict = decide.obstacle(facts, verdict, is_leaving=is_leaving)
        context = Context(facts, is_leaving, Agent(), "veth{}".format)
        reason, command = explain(verdict, context)
        assert len(reason) > 20
        assert not reason.endswith(".")
        assert "None" not in reason + command
        assert command


def test_a_reason_is_whole_without_its_command():
    """`vxlane flows --slow` has no room for commands."""
    context = Context(facts_of(STREAM, settings=OVER), True, Agent(error="gone"), str)  # noqa: FBT003
    reason, command = explain(Verdict.NO_AGENT, context)
    assert reason.endswith("Start it as this node does")
    assert command == "systemctl start vxlane"


def test_no_pod_names_no_way_to_be_told():
    """Plugin or runtime's cache tell the agent of a pod, and the cluster may leave it out."""
    context = Context(facts_of(STREAM, pod=None), True, Agent(), str)  # noqa: FBT003
    reason, _ = explain(Verdict.NO_POD, context)
    assert "the agent was not told of it, or leaves it out" in reason


def test_the_mechanism_that_concerns_the_pod_is_named():
    """Of what the agent found, a judged flow's reason names what is about its pod or about all."""
    found = [
        mechanism("limit", "all"),
        mechanism("xdp", "veth5"),
        mechanism("quota", "veth77"),
        mechanism("time", "docker0 vet*"),
        mechanism("set", "veth7*"),
        mechanism("log", "all", ignored=True),
        mechanism("payload", "all", flows="translated"),
    ]
    facts = facts_of(STREAM, pod=guarded(Guard.JUDGED))
    context = Context(facts, True, Agent(mechanisms=found), "veth{}".format)  # noqa: FBT003
    reason, _ = explain(Verdict.JUDGED, context)
    named = "limit in somewhere, xdp in somewhere, time in somewhere"
    assert reason.endswith(f"every packet: {named}")


@pytest.mark.parametrize(
    ("facts", "veth", "words"),
    [
        (
            facts_of(DATAGRAM, pod=guarded(Guard.FROM_POD)),
            "veth5 of 10.42.1.2",
            f"{FILTER_OR_PORT}, which acts on what the pod sends",
        ),
        (
            facts_of(STREAM, pod=guarded(Guard.TO_POD), qdiscs={5: "tbf"}),
            "veth5 of 10.42.1.2",
            f"the qdisc tbf, which acts on what the pod is sent; {BOTH_WAYS}",
        ),
        (
            facts_of(
                BESIDE_DATAGRAM,
                receiver=guarded(Guard.TO_POD, NEIGHBOUR),
                qdiscs={6: "netem"},
            ),
            "veth6 of 10.42.1.3",
            "the qdisc netem, which acts on what the pod is sent",
        ),
    ],
)
def test_the_guard_is_named(facts, veth, words):
    """A guarded flow's reason names the veth, what stands there, and what it acts on."""
    context = Context(facts, True, Agent(), "veth{}".format)  # noqa: FBT003
    assert explain(Verdict.GUARDED, context)[0] == f"{veth} has {words}"


@pytest.mark.parametrize(
    ("guard", "qdisc", "command"),
    [
        (Guard.TO_POD, "tbf", "tc qdisc show dev veth5"),
        (
            Guard.FROM_POD,
            "noqueue",
            "tc filter show dev veth5 ingress; bridge -d link show dev veth5",
        ),
    ],
)
def test_the_command_shows_the_guard(guard, qdisc, command):
    """An isolated port of the bridge is nothing that tc shows."""
    facts = facts_of(STREAM, pod=guarded(guard), qdiscs={5: qdisc})
    context = Context(facts, True, Agent(), "veth{}".format)  # noqa: FBT003
    assert explain(Verdict.GUARDED, context)[1] == command


def test_a_free_address_of_this_node_is_told():
    """An address of the node's own CIDR that no pod has is in no other node's network."""
    facts = facts_of(STREAM, peer=None, far_peer=None, is_of_this_node=True)
    reason, command = explain(Verdict.NO_PEER, Context(facts, True, Agent(), str))  # noqa: FBT003
    assert reason.endswith("is in this node's own pod CIDR, but no pod has it")
    assert command == "vxlane pods"
    other_bridge = replace(facts, neighbour=NEIGHBOUR)
    reason, _ = explain(Verdict.NO_PEER, Context(other_bridge, True, Agent(), str))  # noqa: FBT003
    assert "in no peer's pod CIDR" in reason


def mechanism(kind, pods, flows="all", *, ignored=False):
    """One of `vxlane status --json`."""
    return {"kind": kind, "where": "somewhere", "flows": flows, "pods": pods, "ignored": ignored}


def test_largest_packet():
    """It is the record's MTU on the way out, the pod's on the way in, the receiver's between two
    pods of a node.
    """
    facts = facts_of(STREAM, record={"mtu": 1400}, pod=replace(POD, mtu=1440))
    assert decide.largest(facts, is_leaving=True) == 1400
    assert decide.largest(facts, is_leaving=False) == 1440
    beside = facts_of(BESIDE_STREAM, receiver=replace(NEIGHBOUR, mtu=1300))
    assert decide.largest(beside, is_leaving=True) == 1300
    unknown = facts_of(DATAGRAM, record=False, far_peer=replace(PEER, mtu=1420))
    assert decide.largest(unknown, is_leaving=True) == 1420


@pytest.mark.parametrize(
    ("state", "packet"),
    [
        ("syn_sent", Packet.SYN),
        ("syn_recv", Packet.DATA),
        ("established", Packet.DATA),
        ("close_wait", Packet.DATA),
        ("close", Packet.SYN),
    ],
)
def test_next_packet_of_a_connection(state, packet):
    """The state that conntrack has tells whether a connection's next packet is data or a SYN."""
    assert facts_of(STREAM, connection=connection_of(STREAM, state)).packet is packet


@pytest.mark.parametrize(("flow", "left"), [(STREAM, "23.0"), (DATAGRAM, "9.0")])
def test_the_older_of_the_halves_that_count_tells_the_age(flow, left):
    """TCP goes through netfilter again when either half is too old, datagrams by their own."""
    facts = facts_of(flow, record={"seen_out": NOW - SECOND, "seen_in": NOW - 7 * SECOND})
    sentence, _ = explain(Verdict.ENCAPSULATED, Context(facts, True, Agent(), str))  # noqa: FBT003
    assert f"In {left} s one packet" in sentence
