# SPDX-License-Identifier: Apache-2.0
"""What a Node object tells of vxlane on that node. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vxlane.errors import ConfigError
from vxlane.sources.kubernetes.annotations import DEFAULT_PREFIX, annotations_of, name_of
from vxlane.sources.steering import BYPASS, EVERYTHING, REPORT, Wish, parse_wish
from vxlane.util.jsontext import parse_json
from vxlane.util.release import OLDEST, is_too_old

Json = dict[str, Any]

STALE = 660.0
"""Seconds after which no report means no agent: one comes every five minutes, and one may get
lost."""
_ABOVE_ALL = 2**64
"""More than a counter of the programs can hold."""


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One node, as its object tells of it."""

    name: str
    is_ready: bool
    labels: Mapping[str, str]
    kernel: str
    """As `uname -r`."""
    kubelet: str
    """Its version; k3s and RKE2 name themselves in it."""
    backend: str
    """flannel's; empty: flannel does not run there."""
    wanted: str | None
    """The annotation that the agent follows; None: there is none, which is like on."""
    report: Mapping[str, Any]
    """What the agent has said last; empty: nothing."""
    age: float | None
    """Seconds since then."""

    @property
    def is_reporting(self) -> bool:
        """Whether an agent runs there, as far as can be seen."""
        return self.age is not None and self.age < STALE

    @property
    def wish(self) -> Wish | None:
        """What `wanted` means to an agent; None: nothing."""
        try:
            return EVERYTHING if self.wanted is None else parse_wish(self.wanted)
        except ConfigError:
            return None

    @property
    def follows(self) -> bool:
        """Whether the agent says that it is as it is wanted."""
        if not self.is_reporting or self.wish is None:
            return False
        said = (self.report.get("wish"), self.report.get("bypass"))
        return said == (str(self.wish), "on" if self.wish.is_on else "off")

    @property
    def troubles(self) -> list[str]:
        """What is wrong, in whole words; the first is the worst."""
        if not self.report:
            return [] if self.obstacle else ["no agent has reported from it"]
        if not self.is_reporting:
            return [f"its agent has said nothing for {round((self.age or 0) / 60)} minutes"]
        found = []
        if not self.report.get("ready"):
            found.append("its agent is not ready")
        if trouble := self.report.get("trouble"):
            found.append(str(trouble))
        elif not self.follows:
            found.append(f"it is to be {self.wanted or 'on'} and is {self.report.get('bypass')}")
        return found

    @property
    def obstacle(self) -> str:
        """Why it can't be accelerated at all; empty: it can."""
        if not self.backend:
            return "flannel does not run there"
        if self.backend not in {"vxlan", "host-gw"}:
            return f"its flannel has backend {self.backend}"
        if is_too_old(self.kernel):
            return f"kernel {self.kernel}; {OLDEST} is needed"
        return ""

    @property
    def hindrance(self) -> str:
        """Why it can't be accelerated now; empty: it can. No pod starts where kubelet is silent."""
        return self.obstacle or ("" if self.is_ready else "it is not Ready")


def node_of(thing: Mapping[str, Any], now: dt.datetime) -> ClusterNode:
    """The node that a Node object describes, at the time `now`."""
    annotations = annotations_of(thing)
    status = thing.get("status") or {}
    info = status.get("nodeInfo") or {}
    report = _report(annotations.get(REPORT, ""))
    return ClusterNode(
        name=name_of(thing),
        is_ready=is_ready(status),
        labels=(thing.get("metadata") or {}).get("labels") or {},
        kernel=str(info.get("kernelVersion") or ""),
        kubelet=str(info.get("kubeletVersion") or ""),
        backend=annotations.get(f"{DEFAULT_PREFIX}/backend-type", ""),
        wanted=annotations.get(BYPASS),
        report=report,
        age=_age(report.get("at"), now),
    )


def is_ready(status: Mapping[str, Any]) -> bool:
    """Whether the status of a node, or of a pod, says that it is Ready."""
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )


def document(node: ClusterNode) -> Json:
    """One node of `vxlane cluster status`; docs/json.md has the keys."""
    told = node.report if node.is_reporting else {}
    return {
        "node": node.name,
        "version": told.get("version"),
        "mode": told.get("mode"),
        "wanted": node.wanted or "on",
        "bypass": told.get("bypass"),
        "share": told.get("share"),
        "packets": told.get("packets"),
        "pods": told.get("pods"),
        "age_seconds": None if node.age is None else round(node.age),
        "obstacle": node.obstacle or None,
        "troubles": node.troubles,
    }


def _report(text: str) -> Mapping[str, Any]:
    """What an agent has written; empty: nothing, or what no agent writes.

    Whoever has a node's own credentials can write anything there. A wrong value is not just left
    out: without its failures a node would look well.
    """
    try:
        found = parse_json(text) if text else {}
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    told = {key: value for key, value in found.items() if value is not None}
    is_right = all(_IS_RIGHT[key](value) for key, value in told.items() if key in _IS_RIGHT)
    return told if is_right else {}


def _is_text(value: object) -> bool:
    # JSON can name halves of characters, which can't be printed.
    return isinstance(value, str) and not any("\ud800" <= each <= "\udfff" for each in value)


def _is_count(value: object) -> bool:
    # To Python a bool is an int, too.
    return type(value) is int and 0 <= value < _ABOVE_ALL


def _is_figure(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # NaN compares with nothing.
    return abs(value) < _ABOVE_ALL


_IS_RIGHT: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("version", "mode", "wish", "bypass", "trouble", "at"), _is_text),
    **dict.fromkeys(("failures", "problems", "pods", "packets"), _is_count),
    "ready": lambda value: isinstance(value, bool),
    "share": _is_figure,
}


def _age(at: object, now: dt.datetime) -> float | None:
    try:
        told = dt.datetime.strptime(str(at), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.timezone.utc)
    except ValueError:
        return None
    # Clocks differ: a report from the future is a fresh one.
    return max(0.0, (now - told).total_seconds())
