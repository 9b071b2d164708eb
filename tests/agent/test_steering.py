# SPDX-License-Identifier: Apache-2.0
"""What the cluster wants is made so, remembered, and told back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agentparts import Part, Parts

from vxlane.agent.server.report import READINGS, Reports
from vxlane.agent.steering import FILE, Steering
from vxlane.config import Config
from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.records import Count
from vxlane.errors import KernelError
from vxlane.pods.interfaces import PodInterface
from vxlane.sources.steering import EVERYTHING, NOTHING, Report, Wish


class Steered:
    """A cluster that says what it is set to, and an agent that writes down what it is told."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.said: Wish | None = None
        self.told: list[Report] = []
        self.wishes: list[Wish] = []
        self.changed = 7
        self.agent: Any = Part("agent", [])
        self.agent.config = Config("node1", state)
        self.agent.pods = Part("pods", [])
        self.agent.steer = self.steer

    def steer(self, wish: Wish) -> None:
        """See `Agent`."""
        self.agent.wish = wish
        self.wishes.append(wish)

    def wish(self) -> Wish | None:
        """See `Cluster`."""
        return self.said

    def opt_out(self, pod: str) -> str | None:
        """See `Cluster`."""
        return {"shop/out": "says off", "shop/new": None}.get(pod, "")

    def on_event(self) -> None:
        """See `Cluster`."""

    def tell(self, report: Report) -> None:
        """See `Cluster`."""
        self.told.append(report)

    def start(self) -> Steering:
        """An agent begins."""
        cluster: Any = self
        return Steering(self.agent, cluster)


@pytest.fixture
def steered(tmp_path: Path) -> Steered:
    """Nothing is known yet."""
    return Steered(tmp_path)


def named(name: str) -> PodInterface:
    """A pod by its name."""
    return PodInterface("c1", "eth0", "", "veth1", "02:00:00:00:00:01", (), name)


def test_until_the_wish_is_known_nothing_is_bypassed(steered: Steered) -> None:
    """A node that was switched off must not be bypassed because its API server is down."""
    steering = steered.start()
    assert steered.wishes == [NOTHING]
    assert not (steered.state / FILE).exists()
    steered.said = EVERYTHING
    steering.on_event()
    steering.on_event()
    assert steered.wishes == [NOTHING, EVERYTHING]


def test_the_next_agent_begins_with_the_last_wish(steered: Steered) -> None:
    """It is in the state directory; what is no wish there is none."""
    steering = steered.start()
    steered.said = Wish(25)
    steering.on_event()
    steered.said = None
    steered.start()
    assert steered.wishes[-1] == Wish(25)
    (steered.state / FILE).write_text("\0?")
    steered.start()
    assert steered.wishes[-1] == NOTHING


def test_a_pod_that_cant_be_let_in_ends_no_agent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the kernel refuses when an annotation is known, or the wish changes, is a failure like
    any other, and pods are looked at once for each event.
    """
    parts = Parts(monkeypatch, tmp_path)
    agent = parts.agent()
    cluster: Any = Part("cluster", [])
    steering = Steering(agent, cluster)
    parts.pods.failing = {"reconsider": KernelError("write the map of pods", 1)}
    for wish in (None, EVERYTHING):
        cluster.wish = lambda wish=wish: wish
        parts.done.clear()
        steering.on_event()
        assert parts.calls("pods") == ["pods.reconsider"]
        (failure,) = agent.failures
        assert "write the map of pods" in failure


def test_a_pod_is_let_in_by_share_and_annotation(steered: Steered) -> None:
    """Of a share that leaves it out the reason is told; else it is the annotation's."""
    steered.said = EVERYTHING
    steering = steered.start()
    assert steered.agent.pods.admission is steering
    answers = [steering.reason(named(f"shop/{name}")) for name in ("in", "out", "new")]
    assert answers == ["", "says off", None]
    steered.said = NOTHING
    steering.on_event()
    assert steering.reason(named("shop/in")) == ("the bypass of this node is switched off")
    steered.said = Wish(1)
    steering.on_event()
    assert steering.reason(named("shop/in")) == (
        "it is not among the 1% of this node's pods that are to be bypassed"
    )


def test_a_report_says_what_a_person_asks_first() -> None:
    """Version, mode, wish, bypass, readiness, and the first trouble of several, cut to length."""
    agent: Any = Part("agent", [])
    agent.config, agent.bypass, agent.is_serving = Config("node1", Path()), None, True
    agent.wish = Wish(25)
    agent.failures = ("x" * 300,)
    agent.problems = SimpleNamespace(current=[SimpleNamespace(node="node2", reason="has no MAC")])
    agent.pods = SimpleNamespace(ports=lambda: (1, 2))
    report = Reports(agent).report()
    assert dict(report.facts) == {
        "version": report.facts["version"],
        "mode": "own",
        "wish": "25%",
        "bypass": "unavailable",
        "ready": True,
        "failures": 1,
        "problems": 1,
        "trouble": "x" * 200,
    }
    assert dict(report.figures) == {"pods": 2, "packets": 0, "share": None}


def test_the_share_is_that_of_the_last_minutes() -> None:
    """What was long ago does not count; maps that can't be read, or are new, begin anew."""
    agent: Any = Part("agent", [])
    agent.config, agent.is_serving, agent.failures = Config("node1", Path()), True, ()
    agent.problems = SimpleNamespace(current=[])
    agent.pods, agent.wish = SimpleNamespace(ports=tuple), EVERYTHING
    now: list[Any] = [0, 0]

    def counters() -> dict[Program, dict[Verdict, Count]]:
        if isinstance(now[0], KernelError):
            raise now[0]
        made = {program: dict.fromkeys(Verdict, Count(0, 0)) for program in Program}
        made[Program.FROM_POD][Verdict.ENCAPSULATED] = Count(now[0], 0)
        made[Program.FROM_POD][Verdict.FLOW_UNKNOWN] = Count(now[1], 0)
        return made

    agent.bypass = SimpleNamespace(
        maps=SimpleNamespace(counters=counters),
        lease=SimpleNamespace(is_enabled=True, is_held=True),
        is_whole=True,
    )
    reports = Reports(agent)

    def figures(bypassed: Any, others: int) -> tuple[Any, Any]:
        now[:] = bypassed, others
        said = reports.report().figures
        return said["packets"], said["share"]

    assert figures(0, 1000) == (0, None)
    assert figures(300, 1100) == (400, 0.75)
    for _ in range(READINGS - 2):
        figures(300, 1100)
    assert figures(400, 1100) == (100, 1.0)
    assert figures(KernelError("read", 2), 0) == (0, None)
    assert figures(50, 50) == (100, 0.5)
