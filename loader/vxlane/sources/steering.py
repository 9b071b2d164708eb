# SPDX-License-Identifier: Apache-2.0
"""What a cluster wants of the bypass on its nodes, and what a node's agent reports to it.

A node, a namespace and a pod may each have the annotation `BYPASS`. A node's agent writes the
annotation `REPORT`. Pure but for the interface's descriptor.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vxlane.errors import ConfigError

BYPASS = "vxlane.io/bypass"
"""Of a node: on, off, or a share of its pods, such as 25%. Of a pod or a namespace: on or off."""
REPORT = "vxlane.io/status"
"""Of a node: what its agent says of itself, as JSON."""

_SHARE = re.compile(r"(100|[1-9]?[0-9])%")


@dataclass(frozen=True, slots=True)
class Wish:
    """How much of one node's traffic is to be bypassed.

    A share is a share of pods, not of flows. People have figures for pods: if some replicas of a
    Deployment are bypassed and others are not, the two can be compared. A fault then hits only
    these pods, and not a part of everybody's connections. The programs know nothing of shares, so
    a share costs no instruction and no new version of their maps.
    """

    percent: int = 100

    def __str__(self) -> str:
        return {0: "off", 100: "on"}.get(self.percent, f"{self.percent}%")

    @property
    def is_on(self) -> bool:
        """Whether any pod is wanted to be bypassed."""
        return self.percent > 0

    def includes(self, pod: str) -> bool:
        """Whether the pod of this name is to be bypassed. A larger share has all of a smaller."""
        return zlib.crc32(pod.encode()) % 100 < self.percent


NOTHING, EVERYTHING = Wish(0), Wish(100)


@dataclass(frozen=True, slots=True)
class Report:
    """What an agent says of itself."""

    facts: Mapping[str, Any]
    """These change seldom, and a change is reported soon."""
    figures: Mapping[str, Any]
    """These change all the time."""

    def text(self, at: str) -> str:
        """The annotation's value, as of the time `at` (RFC 3339)."""
        return json.dumps({**self.facts, **self.figures, "at": at}, separators=(",", ":"))


class Cluster(Protocol):
    """A cluster, as the agent of one of its nodes sees it. Nothing here waits for a server."""

    changed: int
    """A descriptor: readable = call `on_event`. -1: nothing ever changes."""

    def on_event(self) -> None:
        """Read `changed` empty. `wish` and `opt_out` may have other answers now."""

    def wish(self) -> Wish | None:
        """How much of this node's bypass is wanted; None: not known yet."""

    def opt_out(self, pod: str) -> str | None:
        """Why the pod "namespace/name" is to stay on the kernel path; empty: it is not.

        None: the answer is not known yet, and is being asked for.
        """

    def forget(self, pod: str) -> None:
        """Ask again at the next `opt_out`: it may be another pod of the same name."""

    def tell(self, report: Report) -> None:
        """Publish this report in place of the last one, at a pace that the cluster can bear."""


class NoCluster:
    """No cluster: everything is bypassed, and nothing is reported."""

    changed = -1

    def on_event(self) -> None:
        """Never called."""

    def wish(self) -> Wish | None:
        """Everything."""
        return EVERYTHING

    def opt_out(self, pod: str) -> str | None:  # noqa: ARG002 (none is asked for)
        """Empty: no pod is opted out."""
        return ""

    def forget(self, pod: str) -> None:
        """Does nothing."""

    def tell(self, report: Report) -> None:
        """Does nothing."""


def parse_wish(text: str) -> Wish:
    """A node's annotation; ConfigError names what it may say."""
    word = text.strip().lower()
    if word in {"on", "off"}:
        return EVERYTHING if word == "on" else NOTHING
    if share := _SHARE.fullmatch(word):
        return Wish(int(share[1]))
    raise ConfigError(f"{BYPASS} {text!r} must be on, off, or a share of pods such as 25%")


def is_off(annotations: Mapping[str, str]) -> bool | None:
    """What a pod's or a namespace's annotations say; None: nothing, or nothing that is known."""
    return {"off": True, "on": False}.get(annotations.get(BYPASS, "").strip().lower())
