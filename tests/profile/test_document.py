# SPDX-License-Identifier: Apache-2.0
"""From what was counted to the figures of `--json`."""

import pytest
from profilefigures import counts, figures, machine, seen

from vxlane.profile import document
from vxlane.profile.legs import Leg, Path


def test_every_leg_and_path_is_there():
    """A leg without packets has zeros and no quantiles, so that a script finds the same keys."""
    latency = document.latency([])
    assert list(latency) == [leg.label for leg in Leg]
    for paths in latency.values():
        assert list(paths) == ["bypass", "kernel"]
        assert paths["bypass"]["packets"] == 0
        assert paths["bypass"]["p99_ns"] is None
        assert paths["bypass"]["histogram_ns"] == []


def test_figures_of_a_leg():
    """Quantiles, sizes and powers of two; no quantile is above the longest time there was."""
    times = counts(s40=98, s52=2)
    seen_once = seen(Leg.POD_TO_NIC, Path.BYPASS, times, counts(s22=100), 17000)
    leg = document.latency([seen_once])["pod_to_nic"]["bypass"]
    assert leg["packets"] == 100
    assert 2048 <= leg["p50_ns"] < 2560
    assert leg["p99_ns"] == leg["longest_ns"] == 17000
    assert (leg["bytes_per_packet"], leg["segments_per_packet"]) == (100.0, 2.0)
    assert [bar["packets"] for bar in leg["histogram_ns"]] == [98, 0, 0, 2]
    assert leg["histogram_bytes"] == [{"from": 64, "below": 128, "packets": 100}]


def test_both_histograms_lie_on_one_axis():
    """The axis goes from the lowest to the highest of either path, and leaves no power out."""
    paths = figures()["latency"]["pod_to_nic"]
    lows = [low for low, _ in document.axis(paths, "histogram_ns")]
    assert lows == [2048, 4096, 8192, 16384, 32768, 65536]
    assert document.axis(paths, "histogram_bytes") == [(64, 128)]
    assert document.axis(document.latency([])["pod_to_nic"], "histogram_ns") == []


def test_programs():
    """Run time becomes nanoseconds a run and the share of one CPU."""
    assert figures()["programs"] == {
        "from_pod": {"runs": 8, "ns_per_run": 500.0, "cpu_share": 0.000002}
    }


def test_shares_of_the_cpus():
    """Ticks between two readings become shares that sum up to 1, by CPU and in total."""
    found = figures()["machine"]
    assert found["cpus"][1]["cpu"] == 2
    assert found["cpus"][1]["net_rx"] == 3
    for shares in (*found["cpus"], found["total"]):
        assert (shares["user"], shares["idle"], shares["softirq"]) == (0.25, 0.5, 0.25)
    assert (found["dropped"], found["squeezed"]) == (3, 0)


def test_a_cpu_that_came_meanwhile_is_left_out():
    """Without an earlier reading a CPU has no share."""
    before, after = machine({"user": 1}, 0), machine({"user": 2}, 0)
    del before.cpus[2]
    assert [cpu["cpu"] for cpu in document.machine(before, after)["cpus"]] == [0]


def test_losses_by_peer():
    """Pods of one peer are one row, other addresses one each, and the worst comes first."""
    lost = [
        {"remote": "10.42.2.2", "is_syn": False, "count": 4},
        {"remote": "10.42.2.3", "is_syn": True, "count": 1},
        {"remote": "10.96.0.1", "is_syn": True, "count": 2},
    ]
    peers = {"10.42.2.2": "10.42.2.0/24", "10.42.2.3": "10.42.2.0/24"}
    rows = document.losses(lost, peers.get)
    assert rows == [
        {"peer": "10.42.2.0/24", "remote": "10.42.2.0/24", "retransmits": 4, "unanswered_syns": 1},
        {"peer": None, "remote": "10.96.0.1", "retransmits": 0, "unanswered_syns": 2},
    ]


@pytest.mark.parametrize("losses", [[], [{"remote": "192.0.2.1", "is_syn": False, "count": 1}]])
def test_losses_to_no_peer(losses):
    """None are none, and an address outside stands by itself."""
    rows = document.losses(losses, lambda _: None)
    assert [row["remote"] for row in rows] == [row["remote"] for row in losses]
