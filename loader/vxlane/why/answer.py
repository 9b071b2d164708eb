# SPDX-License-Identifier: Apache-2.0
"""The answer to `vxlane why`, as the document that docs/json.md explains. Pure but for the reader.

A flow has two directions. Each is judged where its packets may be bypassed: at its own pod's
program, or at the NIC's if its sender is on another node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.records import Tuple
from vxlane.errors import OptionError
from vxlane.host.connections import Connection
from vxlane.util.five_tuple import FiveTuple
from vxlane.util.names import device_name
from vxlane.why import decide
from vxlane.why.ends import NAMES, PROTOCOLS, Question
from vxlane.why.facts import Facts
from vxlane.why.reader import Reader
from vxlane.why.reasons import Agent, Context, explain

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Direction:
    """The packets of one direction of a flow, by the facts of its pod on this node."""

    facts: Facts
    is_leaving: bool

    def document(self, agent: Agent, device: Callable[[int], str]) -> Json:
        """Why they are not bypassed, and what the next one meets."""
        judge = decide.leaving if self.is_leaving else decide.arriving
        meets = judge(self.facts)
        verdict = decide.obstacle(self.facts, meets, is_leaving=self.is_leaving)
        context = Context(self.facts, self.is_leaving, agent, device)
        reason, command = explain(verdict, context)
        return {
            "verdict": "bypassed" if decide.is_bypassed(verdict) else verdict.label,
            "reason": reason,
            "command": command,
            "page": f"docs/verdicts/{verdict.label}.md",
            "next": self._next(meets),
            "largest_packet": decide.largest(self.facts, is_leaving=self.is_leaving),
        }

    def _next(self, meets: Verdict) -> Json:
        is_seen = self.facts.pod is not None and self.facts.has_veth
        if self.is_leaving and not is_seen and meets is not Verdict.NO_AGENT:
            # No program is attached to what is no accelerated pod.
            return {"program": None, "verdict": None, "packet": self.facts.packet.value}
        program = Program.FROM_POD if self.is_leaving else Program.FROM_NIC
        return {
            "program": program.label,
            "verdict": meets.label,
            "packet": self.facts.packet.value,
        }


def answers(reader: Reader, question: Question, agent: Agent) -> list[Json]:
    """One document for each flow that is meant; where there is none, what a new one would meet.

    OptionError: no end is on this node, or both are the same.
    """
    if question.source.address == question.destination.address:
        same = f"{question.source.address} is both ends"
        raise OptionError(f"{same}, and no program sees what a pod sends to itself; give two pods")
    flows: Mapping[Tuple, Connection | None] = dict(reader.flows(question)) or {
        _new(question): None
    }
    return [
        flow_document(reader, sent, connection, agent)
        for sent, connection in sorted(flows.items(), key=lambda item: str(item[0]))
    ]


def _new(question: Question) -> Tuple:
    """A flow that has sent nothing yet; ports that nobody gave are 0."""
    protocol = question.protocol or PROTOCOLS["tcp"]
    source, destination = question.source, question.destination
    port = destination.port or 0
    if protocol == PROTOCOLS["icmp"]:
        port = 8
    return Tuple(source.address, destination.address, source.port or 0, port, protocol)


def flow_document(reader: Reader, sent: Tuple, connection: Connection | None, agent: Agent) -> Json:
    """Of packets with that 5-tuple, and of those that come back."""
    there, back = _directions(reader, sent, connection)
    behind = there.facts.behind if there.is_leaving else there.facts.behind.reversed
    return {
        "protocol": NAMES.get(sent.protocol, str(sent.protocol)),
        **_ends(sent),
        "source_pod": reader.names.get(sent.local),
        "destination_pod": reader.names.get(sent.remote),
        "translated": _ends(behind) if there.facts.is_translated else None,
        "state": connection.state or None if connection else None,
        **there.document(agent, device_name),
        "back": back.document(agent, device_name),
    }


def _ends(flow: FiveTuple) -> Json:
    """A port of 0 was not given; an echo's type 0 is one."""
    is_echo = flow.protocol == PROTOCOLS["icmp"]
    return {
        "source": str(flow.local),
        "source_port": flow.local_port or None,
        "destination": str(flow.remote),
        "destination_port": flow.remote_port if is_echo else flow.remote_port or None,
    }


def _directions(
    reader: Reader, sent: Tuple, connection: Connection | None
) -> tuple[Direction, Direction]:
    """There and back, by the facts of whichever end is on this node."""
    if _is_here(reader, sent.local, sent.remote):
        facts = reader.facts(sent, connection)
        if facts.receiver is None:
            return Direction(facts, is_leaving=True), Direction(facts, is_leaving=False)
        other = reader.facts(facts.behind.reversed, connection)
        return Direction(facts, is_leaving=True), Direction(other, is_leaving=True)
    facts = reader.facts(sent.reversed, connection)
    return Direction(facts, is_leaving=False), Direction(facts, is_leaving=True)


def _is_here(reader: Reader, source: object, destination: object) -> bool:
    """Whether the sender is on this node. OptionError: neither end is."""
    for end, is_source in ((source, True), (destination, False)):
        if end in reader.pods:
            return is_source
    for end, other, is_source in ((source, destination, True), (destination, source, False)):
        assert isinstance(end, IPv4Address)
        assert isinstance(other, IPv4Address)
        if reader.maps.peer_of(other) and not reader.maps.peer_of(end):
            return is_source
    advice = "run it on the node of one of them; 'vxlane pods' lists the pods of this one"
    raise OptionError(f"neither {source} nor {destination} is a pod of this node; {advice}")
