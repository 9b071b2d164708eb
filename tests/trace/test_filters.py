# SPDX-License-Identifier: Apache-2.0
"""What a person asks for, and the struct that the tracer goes by."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from vxlane.datapath.abi import HEADER, Verdict, VerdictKind, Way
from vxlane.datapath.records import Flow, Peer, Pod, Tuple, mapped
from vxlane.errors import ConfigError
from vxlane.pods.names import PodNames
from vxlane.trace.filters import Known, Wanted, build, notes
from vxlane.trace.names import Names

POD, REMOTE = (IPv4Address(text) for text in ("10.42.1.5", "10.42.2.7"))
NODE2 = IPv4Network("10.42.2.0/24")
NAMES = Names(
    pods=PodNames({"default/web": [POD]}),
    nodes={"node2": (IPv4Address("192.168.77.2"), NODE2)},
)
PEER = Peer(
    cidr=NODE2,
    address=IPv4Address("192.168.77.2"),
    next_hop=IPv4Address("192.168.77.2"),
    ifindex=1,
    mtu=1450,
    slot=0,
    vtep_mac="0e:00:00:00:00:02",
)
FLOW = Tuple(POD, IPv4Address("10.96.0.1"), 40000, 443, 6)
RECORD = Flow.of(
    HEADER.structs["flow_key"](protocol=6, low_port=40000, high_port=443),
    HEADER.structs["flow"](),
)
BEHIND = replace(FLOW, remote=REMOTE, remote_port=8443)
KNOWN = Known(NAMES, {}, {NODE2: PEER}, [replace(RECORD, tuple=FLOW, behind=BEHIND)])


def test_nothing_asked_is_everything() -> None:
    """Without a filter every verdict is wanted and nothing else is set."""
    made = build(Wanted(), KNOWN)
    assert made.verdicts == (1 << 64) - 1
    made.verdicts = 0
    assert not any(bytes(made))


def test_every_verdict_has_a_bit() -> None:
    """The filter's bits are enough for all verdicts."""
    assert len(Verdict) <= 64


@pytest.mark.parametrize("word", ["10.42.1.5", "default/web"])
def test_pod(word: str) -> None:
    """A pod goes by its address or its name."""
    assert bytes(build(Wanted(pod=word), KNOWN).pod) == mapped(POD)


@pytest.mark.parametrize("word", ["node2", "192.168.77.2", "10.42.2.0/24"])
def test_peer(word: str) -> None:
    """A peer goes by its name, its address or its CIDR."""
    made = build(Wanted(peer=word), KNOWN)
    assert bytes(made.peer) == mapped(NODE2.network_address)
    assert bytes(made.peer_mask) == b"\xff" * 15 + b"\0"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), []),
        (Wanted(pod="default/web", peer="node2"), []),
        (Wanted(peer="10.42.2.128/25"), []),
        (Wanted(peer="10.42.0.0/16"), []),
        (
            Wanted(pod="10.42.1.9"),
            ["no accelerated pod of this node has the address 10.42.1.9; see 'vxlane pods'"],
        ),
        (
            Wanted(peer="10.42.9.0/24"),
            ["no peer has a pod CIDR in 10.42.9.0/24; see 'vxlane peers'"],
        ),
        (Wanted(peer="fd00::/64"), ["no peer has a pod CIDR in fd00::/64; see 'vxlane peers'"]),
    ],
)
def test_notes(wanted: Wanted, expected: list[str]) -> None:
    """A pod or a peer that is not there may still come, so that is a note."""
    pod = Pod.of(HEADER.structs["address"](), HEADER.structs["pod"]())
    assert notes(wanted, replace(KNOWN, pods={POD: pod})) == expected


def test_verdicts() -> None:
    """A verdict is its bit, a kind of verdicts all of theirs; given again they add up."""
    made = build(Wanted(verdicts=("bypassed", "no_peer")), KNOWN)
    bypassed = {verdict for verdict in Verdict if verdict.kind is VerdictKind.BYPASSED}
    assert made.verdicts == sum(1 << verdict for verdict in bypassed | {Verdict.NO_PEER})


def test_plain_fields() -> None:
    """Protocol by name or number, port and host."""
    made = build(Wanted(proto="udp", port=53, host="10.42.2.7"), KNOWN)
    assert (made.protocol, made.port, bytes(made.host)) == (17, 53, mapped(REMOTE))
    assert build(Wanted(proto="47"), KNOWN).protocol == 47


def test_flow_with_its_translation() -> None:
    """A flow that netfilter translates is wanted in both forms, by its record."""
    made = build(Wanted(flow="tcp  10.42.1.5:40000  10.96.0.1:443  0.1"), KNOWN)
    assert made.protocol == 6
    assert (bytes(made.flow_remote), made.flow_remote_port) == (mapped(FLOW.remote), 443)
    assert (bytes(made.nat_remote), made.nat_remote_port) == (mapped(REMOTE), 8443)


def test_flow_as_its_neighbour_has_it() -> None:
    """Between two pods of the node one record knows the flow as either has it."""
    neighbour = IPv4Address("10.42.1.6")
    record = replace(RECORD, tuple=FLOW, behind=replace(BEHIND, remote=neighbour), way=Way.LOCAL)
    asked = Wanted(flow=f"tcp {neighbour}:8443 {POD}:40000")
    made = build(asked, Known(NAMES, {}, {}, [record]))
    assert (bytes(made.nat_local), made.nat_local_port) == (mapped(FLOW.remote), 443)


def test_flow_without_a_record() -> None:
    """A flow that is not recorded is wanted as it is."""
    made = build(Wanted(flow="udp 10.42.1.5:1 10.42.2.7:2"), KNOWN)
    assert bytes(made.nat_remote) == bytes(made.flow_remote) == mapped(REMOTE)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(pod="nobody"), "no pod of this node is known by that name; give its address"),
        (Wanted(peer="node9"), "no such node; give a CIDR or an address that 'vxlane peers' lists"),
        (Wanted(pod=""), "'': no pod of this node is known by that name"),
        (Wanted(peer=""), "--peer '': no such node"),
        (Wanted(host=""), "--host '': not an IP address"),
        (Wanted(proto=""), "--proto '': give icmp, tcp, udp, sctp"),
        (Wanted(flow=""), "give a flow as 'vxlane flows' prints it"),
        (Wanted(host="web"), "--host 'web': not an IP address"),
        (Wanted(proto="esp"), "--proto 'esp': give icmp, tcp, udp, sctp or a number up to 255"),
        (Wanted(proto="256"), "--proto '256'"),
        (Wanted(flow="tcp 10.42.1.5 10.42.2.7"), "give a flow as 'vxlane flows' prints it"),
        (Wanted(flow="tcp 10.42.1.5:40000 10.42.2.7:8O"), "give a flow as 'vxlane flows' prints"),
        (Wanted(flow="tcp a:1 b:2"), "--flow 'a': not an IP address"),
        (Wanted(flow="tcp fe80::1:1 1.2.3.4:1"), "fe80::1 and 1.2.3.4 are of two IP versions"),
        (Wanted(flow="esp 1.2.3.4:1 1.2.3.4:2"), "--flow 'esp': give icmp"),
        (Wanted(flow="tcp 1.2.3.4:70000 1.2.3.4:2"), "--flow: 70000 is not a port"),
        (Wanted(pod="::"), "--pod: a packet can't be told by ::; leave the option out"),
        (Wanted(host="::"), "--host: a packet can't be told by ::"),
        (Wanted(peer="::/0"), "--peer: a packet can't be told by ::"),
        (Wanted(flow="tcp :::1 :::2"), "--flow: a packet can't be told by ::"),
        (Wanted(proto="udp", flow="tcp 1.2.3.4:1 1.2.3.4:2"), "--flow has a protocol of its own"),
    ],
)
def test_refused(wanted: Wanted, message: str) -> None:
    """What means nothing here is refused by its option, with what to give instead."""
    with pytest.raises(ConfigError) as raised:
        build(wanted, KNOWN)
    assert message in str(raised.value)
