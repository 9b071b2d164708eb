# SPDX-License-Identifier: Apache-2.0
"""All that an agent serves to Prometheus, of maps in memory, as its own parser reads it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace

import pytest
from memorymaps import Bpf, in_memory
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from vxlane.agent.server import metrics
from vxlane.datapath.abi import Guard, Program
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import STRUCTS, U32, Peer, Pod
from vxlane.datapath.runtime import RunTime
from vxlane.util.tally import Tally, Withdrawal

OPEN_METRICS = "application/openmetrics-text"
STATUS = {
    "node": "node1",
    "mode": "own",
    "bypass": "on",
    "wanted": "on",
    "ready": True,
    "peers": 1,
    "pods": 1,
    "epoch": 4,
    "source_age_seconds": 2.5,
    "source_error": None,
    "reconciles": 7,
    "problems": [],
    "failures": ["rules: no"],
    "mechanisms": [
        {"flows": "all", "ignored": False},
        {"flows": "translated", "ignored": False},
        {"flows": "all", "ignored": True},
    ],
}
CIDR = IPv4Network("10.42.2.0/24")
ADDRESS = IPv4Address("10.42.1.5")


class Scraped:
    """A node whose every metric has a sample."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.maps, self.bpf = in_memory(monkeypatch)
        self.status: dict[str, object] | None = dict(STATUS)
        self.tally: Tally | None = Tally()
        self.names = {CIDR: "node2"}
        self.run_times = {Program.FROM_POD: RunTime(3_000_000_000, 10)}
        monkeypatch.setattr(self.maps, "close", lambda: None)
        monkeypatch.setattr(metrics, "Maps", SimpleNamespace(open=self._open))
        monkeypatch.setattr(metrics, "run_times", lambda _: self.run_times)
        fill(self.maps, self.bpf)
        self.tally.withdrawals[Withdrawal.RULES] += 2
        self.tally.rule_changes[True] += 2
        self.tally.hooks["from_pod", "attach", True] += 3
        self.tally.reconciles["nodes"].observe(0.02)
        self.are_pinned = True
        self._answer = metrics.answer(Path("pins"), self)

    @property
    def latest(self) -> dict[str, object] | None:
        """See `StatusStore`."""
        return self.status

    def node_names(self) -> dict[IPv4Network, str]:
        """See `StatusStore`."""
        return self.names

    def families(self) -> dict[str, Metric]:
        """One scrape, parsed."""
        text = self._answer("/metrics", {"accept": OPEN_METRICS}).body.decode()
        return {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, name: str, **labels: str) -> float:
        """The one sample of that name with exactly these labels."""
        (found,) = [
            one.value
            for one in samples(self.families())
            if (one.name, one.labels) == (name, labels)
        ]
        return float(found)

    def _open(self, _: Path) -> Maps:
        if not self.are_pinned:
            raise FileNotFoundError
        return self.maps


def samples(families: dict[str, Metric]) -> Iterator[object]:
    """Of all families."""
    return (sample for family in families.values() for sample in family.samples)


def fill(maps: Maps, bpf: Bpf) -> None:
    """One peer with traffic, one pod."""
    hop = IPv4Address("192.168.77.2")
    maps.put_peer(Peer(CIDR, hop, hop, 3, 1450, 5, "02:00:00:00:00:02"))
    maps.put_pod(Pod(ADDRESS, 7, 4, 1450, "02:00:00:00:01:02", "02:00:00:00:01:01", Guard(0), 1))
    count = bytes(STRUCTS["peer_counter"](tx_packets=5, tx_bytes=500, rx_packets=4, rx_bytes=400))
    bpf.entries["peer_counters"][bytes(U32(5))] = count + bytes(len(count))
