# SPDX-License-Identifier: Apache-2.0
"""Rates of two samples, their order, and what is slow."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from vxlane.datapath.abi import Program, Verdict, VerdictKind
from vxlane.datapath.records import Count, Peer, PeerCount
from vxlane.datapath.runtime import RunTime
from vxlane.host.traffic import Traffic
from vxlane.show.rates import Order, PodSample, Sample, matching, rates_document
from vxlane.show.slow import WHY
from vxlane.show.top import notes

NOTHING = {program: dict.fromkeys(Verdict, Count(0, 0)) for program in Program}


def counters(**packets):
    """Counters of from_pod, of 100 bytes a packet."""
    counts = {Verdict[name.upper()]: Count(n, 100 * n) for name, n in packets.items()}
    return NOTHING | {Program.FROM_POD: NOTHING[Program.FROM_POD] | counts}


def peer(number, ifindex=3):
    """The peer with pods 10.42.<number>.0/24."""
    address = IPv4Address(f"192.168.77.{number}")
    cidr = IPv4Network(f"10.42.{number}.0/24")
    return Peer(cidr, address, address, ifindex, 1450, number, "02:00:00:00:00:02")


def pod(number, tx=0, rx=0, guarded=()):
    """A pod that has sent and received so many packets of 10 bytes."""
    traffic = Traffic(tx, 10 * tx, rx, 10 * rx)
    return PodSample(f"pod{number}", (f"10.42.1.{number}",), f"veth{number}", guarded, traffic)


FIRST = Sample(100.0, True, NOTHING, {}, {}, {})  # noqa: FBT003 (is_bypassing)


def document(order=Order.PACKETS, *, first=FIRST, **later):
    """What is shown two seconds after `first`."""
    return rates_document(first, replace(first, at=first.at + 2, **later), order)


def whats(shown):
    """What is slow, without why."""
    return [row["what"] for row in shown["slow"]]


def test_rates_are_of_what_happened_between_two_samples():
    """By second; the share is that of `vxlane stats`, and foreign packets have none of it."""
    first = replace(FIRST, counters=counters(encapsulated=1000))
    later = counters(encapsulated=1180, flow_half=20, no_peer=100)
    shown = document(first=first, counters=later)
    assert shown["seconds"] == 2.0
    assert (shown["packets_per_second"], shown["bypassed_per_second"]) == (100.0, 90.0)
    assert shown["share"] == 0.9
    rows = {row["verdict"]: row for row in shown["verdicts"]}
    assert rows.keys() == {"encapsulated", "flow_half", "no_peer"}
    assert rows["flow_half"]["packets_per_second"] == 10.0
    assert rows["flow_half"]["bytes_per_second"] == 1000.0
    assert rows["flow_half"]["share"] == 0.1


def test_a_node_without_traffic_has_no_share():
    """Which is not the same as 0."""
    shown = document()
    assert shown["share"] is None
    assert shown["verdicts"] == shown["slow"] == []


def test_pods_and_peers_are_those_of_both_samples():
    """One that came meanwhile has no rate yet; a slot that changed hands says nothing."""
    first = replace(FIRST, pods={7: pod(1)}, peers={2: (peer(2), PeerCount(0, 0, 0, 0))})
    shown = document(
        first=first,
        pods={7: pod(1, tx=10, rx=4), 8: pod(2, tx=99)},
        peers={2: (peer(2), PeerCount(8, 80, 6, 60)), 3: (peer(3), PeerCount(9, 9, 9, 9))},
    )
    (found,) = shown["pods"]
    assert (found["name"], found["veth"], found["addresses"]) == ("pod1", "veth1", ["10.42.1.1"])
    assert (found["tx_packets_per_second"], found["rx_packets_per_second"]) == (5.0, 2.0)
    assert found["tx_bytes_per_second"] == 50.0
    (found,) = shown["peers"]
    assert (found["name"], found["tx_bytes_per_second"]) == ("10.42.2.0/24", 40.0)
    assert not document(first=first, peers={2: (peer(4), PeerCount(1, 1, 1, 1))})["peers"]


def test_a_counter_that_began_anew_is_no_negative_rate():
    """As a pod's does whose veth was made again."""
    first = replace(FIRST, pods={7: pod(1, tx=1000)})
    (found,) = document(first=first, pods={7: pod(1, tx=3)})["pods"]
    assert found["tx_packets_per_second"] == 0.0


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (Order.PACKETS, ["pod2", "pod1", "pod3"]),
        (Order.BYTES, ["pod3", "pod2", "pod1"]),
        (Order.NAME, ["pod1", "pod2", "pod3"]),
    ],
)
def test_the_order_of_rows(order, names):
    """The busiest first, both directions together; of equals the first by name."""
    pods = {7: pod(1, tx=30, rx=30), 8: pod(2, tx=100), 9: pod(3, rx=60)}
    pods[9] = replace(pods[9], traffic=Traffic(0, 0, 60, 100_000))
    first = replace(
        FIRST, pods={ifindex: pod(number) for ifindex, number in ((7, 1), (8, 2), (9, 3))}
    )
    shown = document(order, first=first, pods=pods)
    assert [row["name"] for row in shown["pods"]] == names


def test_what_a_run_of_a_program_takes():
    """Of the runs meanwhile; a program that the kernel counted no run of is left out."""
    first = replace(
        FIRST, run_times={Program.FROM_POD: RunTime(1000, 10), Program.TO_NIC: RunTime(5, 1)}
    )
    times = {Program.FROM_POD: RunTime(9000, 50), Program.TO_NIC: RunTime(5, 1)}
    assert document(first=first, run_times=times)["programs"] == [
        {"program": "from_pod", "runs_per_second": 20.0, "ns_per_run": 200.0}
    ]


def test_what_stays_on_the_kernel_path_is_slow():
    """If it is a part of all packets that can be felt; the reason is the verdict's."""
    shown = document(counters=counters(encapsulated=1800, judged=180, ttl=20, no_peer=999))
    assert shown["slow"] == [{"what": "from_pod judged (9%)", "why": WHY[Verdict.JUDGED]}]
    assert whats(document(counters=counters(judged=9))) == []  # too few a second


def test_learning_is_slow_only_where_it_is_most_of_it():
    """A few packets of each flow are learned from."""
    assert whats(document(counters=counters(encapsulated=900, learned=100))) == []
    assert whats(document(counters=counters(encapsulated=500, learned=500))) == [
        "from_pod learned (50%)"
    ]


def test_the_gravest_comes_first():
    """No bypass at all, forged packets, peers without a way, the kernel path, guarded pods."""
    first = replace(FIRST, pods={7: pod(1)}, peers={2: (peer(2), PeerCount(0, 0, 0, 0))})
    shown = document(
        first=first,
        is_bypassing=False,
        counters=counters(no_agent=500, spoofed_mac=1),
        peers={2: (peer(2, ifindex=0), PeerCount(0, 0, 0, 0))},
        pods={7: pod(1, tx=100, guarded=("to_pod",))},
    )
    assert whats(shown) == [
        "everything",
        "from_pod spoofed_mac (0%)",
        "peer 10.42.2.0/24",
        "from_pod no_agent (100%)",
        "pod pod1",
    ]


def test_rows_that_match_a_text():
    """In a name, an address, a veth or a verdict, in any case; sums and reasons stay."""
    first = replace(FIRST, pods={7: pod(1), 8: pod(2)})
    shown = document(first=first, pods=first.pods, counters=counters(encapsulated=90, judged=90))
    for text in ("POD2", "10.42.1.2", "veth2"):
        found = matching(shown, text)
        assert [row["name"] for row in found["pods"]] == ["pod2"]
        assert (found["verdicts"], found["slow"]) == ([], shown["slow"])
    assert [row["verdict"] for row in matching(shown, "judged")["verdicts"]] == ["judged"]
    assert matching(shown, "") == shown


def test_every_verdict_of_the_kernel_path_has_a_reason():
    """And no other has, for it is not slow. They fit on a line beside the verdict."""
    kernel_path = {verdict for verdict in Verdict if verdict.kind is VerdictKind.KERNEL_PATH}
    assert WHY.keys() == kernel_path
    assert max(map(len, WHY.values())) <= 80


@pytest.mark.parametrize(
    ("release", "count"),
    [("5.15.0-91-generic", 1), ("6.6.8", 1), ("6.7.0", 0), ("6.18.44-fc-v595", 0), ("10.0", 0)],
)
def test_what_an_older_kernel_does_not_count(release, count):
    """Before Linux 6.7 it is said that IN may lack what the bypass puts into pods."""
    said = notes(release)
    assert len(said) == count
    assert all("may not count what pods receive by the bypass" in note for note in said)
    assert document(notes=tuple(said))["notes"] == said
