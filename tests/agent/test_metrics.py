# SPDX-License-Identifier: Apache-2.0
"""What is served to Prometheus: names, types, labels and values, without a node."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from scraped import ADDRESS, CIDR, Scraped, samples

from vxlane.agent.server.status import StatusStore
from vxlane.util.tally import Histogram, Tally, Withdrawal

BASE_UNITS = ("seconds", "bytes", "ratio")
OTHER_UNITS = re.compile(r"_(ns|us|ms|milliseconds|nanoseconds|minutes|kb|percent)(_|$)")


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Scraped:
    """A node whose every metric has a sample."""
    return Scraped(monkeypatch)


def test_prometheus_itself_reads_all_of_it(node: Scraped) -> None:
    """Its two formats hold the same families, of the same types, each with help and samples."""
    strict = node.families()
    text = node._answer("/metrics", {}).body.decode()
    plain = {family.name: family for family in text_string_to_metric_families(text)}
    # The older format has no type for an info, and calls it by its sample.
    types = {name.removesuffix("_info"): family.type for name, family in plain.items()}
    assert types == {
        name: "gauge" if family.type == "info" else family.type for name, family in strict.items()
    }
    assert all(family.documentation and family.samples for family in strict.values())


def test_names_follow_the_conventions(node: Scraped) -> None:
    """One prefix, base units, _total for counters alone, no name that says its type or labels."""
    for name, family in node.families().items():
        assert re.fullmatch(r"vxlane(_[a-z]+)*", name), name
        assert not OTHER_UNITS.search(name), name
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info")), name
        for sample in family.samples:
            is_counter = family.type == "counter"
            assert sample.name.endswith("_total") is is_counter, sample.name
        if family.type == "histogram":
            assert name.endswith(BASE_UNITS), name


def test_no_label_is_a_pods_address(node: Scraped) -> None:
    """Pods come and go by thousands: a series for each would fill Prometheus. CIDRs may be."""
    values = {value for sample in samples(node.families()) for value in sample.labels.values()}
    assert str(ADDRESS) not in values
    assert "10.42.2.0/24" in values
    for value in values:
        with pytest.raises(ValueError, match="not appear to be"):
            ipaddress.ip_address(value)


def test_a_peer_has_its_nodes_name_beside_its_cidr(node: Scraped) -> None:
    """Before the first reconcile the name is empty."""
    where = {"peer": "10.42.2.0/24", "direction": "in"}
    assert node.value("vxlane_peer_packets_total", **where, node="node2") == 4
    node.names = {}
    assert node.value("vxlane_peer_bytes_total", **where, node="") == 400


def test_names_and_counts_are_the_agents(tmp_path: Path) -> None:
    """They are asked of it at each scrape; before its first reconcile there are none."""
    store = StatusStore(tmp_path / "agent.json")
    assert (store.tally, store.node_names()) == (None, {})
    nodes = [SimpleNamespace(pod_cidr=CIDR, name="node2")]
    paths = tuple(SimpleNamespace(node=node) for node in nodes)
    store._agent = SimpleNamespace(tally=Tally(), overlay=SimpleNamespace(paths=paths))
    assert store.tally is store._agent.tally
    assert store.node_names() == {CIDR: "node2"}
    store._agent.overlay = None
    assert store.node_names() == {}


def test_what_the_agent_did_is_counted(node: Scraped) -> None:
    """Withdrawals by reason, changes of rules, hooks by result, reconciles by what they were of."""
    assert node.value("vxlane_withdrawals_total", reason="rules") == 2
    assert node.value("vxlane_rule_changes_total", concern="pods") == 2
    done = {"program": "from_pod", "action": "attach", "result": "done"}
    assert node.value("vxlane_hook_changes_total", **done) == 3
    duration = "vxlane_reconcile_duration_seconds"
    assert node.value(f"{duration}_bucket", reason="nodes", le="0.01") == 0
    assert node.value(f"{duration}_bucket", reason="nodes", le="0.025") == 1
    assert node.value(f"{duration}_sum", reason="nodes") == 0.02


def test_every_reason_and_result_has_a_series_from_the_start(node: Scraped) -> None:
    """A counter that appears with its first event hides that event from rate()."""
    found = [(one.name, one.labels) for one in samples(node.families())]
    reasons = {labels["reason"] for name, labels in found if name == "vxlane_withdrawals_total"}
    assert reasons == {reason.value for reason in Withdrawal}
    assert sum(name == "vxlane_hook_changes_total" for name, _ in found) == 4 * 2 * 2


def test_packets_say_what_kind_their_verdict_is(node: Scraped) -> None:
    """A share needs no list of verdicts in its query."""
    kinds = {
        sample.labels["verdict"]: sample.labels["kind"]
        for sample in samples(node.families())
        if sample.name == "vxlane_packets_total"
    }
    assert kinds["nat"] == "bypassed"
    assert kinds["no_peer"] == "foreign"
    assert kinds["tags"] == "identity"
    assert kinds["flow_half"] == "kernel_path"


def test_how_full_each_map_is(node: Scraped) -> None:
    """From 0 to 1, of the eight maps that can become full, and what they hold at most."""
    pressure = node.families()["vxlane_map_pressure_ratio"].samples
    assert {sample.labels["map"]: sample.value for sample in pressure} == {
        "peers": 1 / 64,
        "vteps": 1 / 64,
        "pods": 1 / 64,
        "interfaces": 1 / 64,
        "veths": 1 / 64,
        "flows": 0,
        "translations": 0,
        "resets": 0,
    }
    assert node.value("vxlane_map_max_entries", map="peers") == 64


def test_run_time_is_there_while_the_kernel_counts_it(node: Scraped) -> None:
    """In seconds and runs; without statistics there is no sample, which is not the same as 0."""
    assert node.value("vxlane_program_run_seconds_total", program="from_pod") == 3.0
    assert node.value("vxlane_program_runs_total", program="from_pod") == 10
    node.run_times = {}
    assert node.families()["vxlane_program_runs"].samples == []


def test_an_agent_without_programs_still_answers(node: Scraped) -> None:
    """Nothing is pinned, or nothing was reconciled yet: the rest is served."""
    node.are_pinned, node.status, node.tally = False, None, None
    (sample,) = samples(node.families())
    assert sample.name == "vxlane_build_info"
    assert set(sample.labels) == {"version", "contract"}


def test_a_histogram_counts_what_is_at_most_a_bound() -> None:
    """A value that equals a bound is below it, and the last bucket has all."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert histogram.cumulative() == [2, 3, 4]
    assert histogram.sum == 12.0
