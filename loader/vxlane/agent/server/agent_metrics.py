# SPDX-License-Identifier: Apache-2.0
"""The metrics of the agent itself: its state, and what it has done. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric

from vxlane.datapath.abi import Program
from vxlane.util.tally import Histogram, Tally, Withdrawal

_GAUGES = {
    "ready": "Whether the node has its network, and its bypass if it can have one.",
    "peers": "Peers that packets can be sent to.",
    "pods": "Pods that are accelerated.",
    "epoch": "Raised whenever all approvals are withdrawn.",
    "source_age_seconds": "Since the source of nodes was last known to be right.",
}


def of_status(status: dict[str, Any]) -> Iterator[Metric]:
    """The metrics of the status document that docs/json.md describes."""
    info = {key: str(status[key]) for key in ("node", "mode", "bypass", "wanted")}
    yield InfoMetricFamily("vxlane", "This node's agent.", value=info)
    for name, help_ in _GAUGES.items():
        if status[name] is not None:
            yield GaugeMetricFamily(f"vxlane_{name}", help_, value=float(status[name]))
    yield GaugeMetricFamily(
        "vxlane_problems",
        "What is not as it should be with nodes or their entries.",
        value=len(status["problems"]),
    )
    yield GaugeMetricFamily(
        "vxlane_failures", "What the last reconcile could not do.", value=len(status["failures"])
    )
    mechanisms = GaugeMetricFamily(
        "vxlane_mechanisms", "Rules and devices that act on every packet.", labels=["flows"]
    )
    judging = [each["flows"] for each in status["mechanisms"] if not each["ignored"]]
    for flows in ("all", "translated"):
        mechanisms.add_metric([flows], judging.count(flows))
    yield mechanisms
    yield GaugeMetricFamily(
        "vxlane_source_up", "Whether the source can be read.", value=not status["source_error"]
    )
    yield CounterMetricFamily(
        "vxlane_reconciles", "How often state was compared.", value=status["reconciles"]
    )


def of_tally(tally: Tally) -> Iterator[Metric]:
    """What the agent has done since it started. Counters that are 0 are there, too."""
    withdrawals = CounterMetricFamily(
        "vxlane_withdrawals", "How often all approvals were withdrawn.", labels=["reason"]
    )
    for reason in Withdrawal:
        withdrawals.add_metric([reason.value], tally.withdrawals[reason])
    yield withdrawals
    changes = CounterMetricFamily(
        "vxlane_rule_changes", "Changes of the node's packet filter rules.", labels=["concern"]
    )
    for concern, are_pods in (("pods", True), ("others", False)):
        changes.add_metric([concern], tally.rule_changes[are_pods])
    yield changes
    hooks = CounterMetricFamily(
        "vxlane_hook_changes",
        "Programs attached to devices and detached.",
        labels=["program", "action", "result"],
    )
    for program in Program:
        for action in ("attach", "detach"):
            for result, is_done in (("done", True), ("failed", False)):
                count = tally.hooks[program.label, action, is_done]
                hooks.add_metric([program.label, action, result], count)
    yield hooks
    durations = HistogramMetricFamily(
        "vxlane_reconcile_duration_seconds",
        "How long it took to compare and repair state.",
        labels=["reason"],
    )
    # A copy: the agent's thread may add a reason meanwhile.
    for parts, histogram in sorted(tally.reconciles.copy().items()):
        durations.add_metric([parts], _buckets(histogram), histogram.sum)
    yield durations


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, map(float, histogram.cumulative()), strict=True))
