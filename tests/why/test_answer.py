# SPDX-License-Identifier: Apache-2.0
"""The documents of `vxlane why`, from maps in memory, and the text that is made of them."""

from __future__ import annotations

from dataclasses import replace

import memorymaps
import pytest
import worldmaps
from flowfacts import connection_of
from world import APPROVED, LOCAL_UDP, NEIGHBOUR, POD, REMOTE, Approval

from vxlane.cli.why import _text
from vxlane.datapath.records import Tuple
from vxlane.errors import ConfigError
from vxlane.why.answer import answers
from vxlane.why.ends import End, Question
from vxlane.why.reader import Reader
from vxlane.why.reasons import Agent

UNKNOWN = POD.address + 100
OUTSIDE = REMOTE + 2**16


class Kernel:
    """Has the connections that it is given."""

    def __init__(self, *connections):
        self._connections = connections

    def connection(self, sent):
        """The one with these packets."""
        forms = ((each, form) for each in self._connections for form in (each.original, each.reply))
        return next((each for each, form in forms if form == sent), None)

    def connections_between(self, source, destination):
        """Those that `source` began."""
        ends = source, destination
        return [c for c in self._connections if (c.original.local, c.original.remote) == ends]

    def mac(self, _veth):
        """Not known."""

    def holder(self, _address):
        """No device of the node."""
        return ""

    def qdisc(self, _veth):
        """None that shapes."""
        return "noqueue"

    def strayed(self, _peer, _source):
        """Not at all."""
        return ""


@pytest.fixture
def reader(monkeypatch):
    """Make a reader of a world in memory."""

    def make(seen=APPROVED, *connections):
        maps, bpf = memorymaps.in_memory(monkeypatch)
        for name in ("syscall", "batches"):
            monkeypatch.setattr(worldmaps, name, bpf)
        worldmaps.stand(maps, seen)
        return Reader(maps, Kernel(*connections))

    return make


def ask(made, source, destination, *ports, protocol=None):
    """The flows that are answered for."""
    first, second = ports or (None, None)
    return answers(made, Question(End(source, first), End(destination, second), protocol), Agent())


def test_every_flow_between_two_pods(reader):
    """Without ports there is an answer for each flow, and each has its own protocol and ports."""
    found = ask(reader(), POD.address, REMOTE)
    ends = {(flow["protocol"], flow["source_port"], flow["destination_port"]) for flow in found}
    assert ends == {("tcp", 40000, 80), ("udp", 40001, 53), ("icmp", 77, 8), ("icmp", 78, 0)}
    assert {flow["verdict"] for flow in found} == {"bypassed"}


def test_ports_and_protocol_choose(reader):
    """Ports and protocol leave the flows out that are not meant."""
    made = reader()
    (flow,) = ask(made, POD.address, REMOTE, None, 53)
    assert (flow["protocol"], flow["source_port"]) == ("udp", 40001)
    (flow,) = ask(made, POD.address, REMOTE, 40000, 80, protocol=6)
    assert flow["next"]["packet"] == "data of a connection"


def test_the_other_end_asks(reader):
    """A flow is found by whoever sends, and there and back are told in its order."""
    (flow,) = ask(reader(), REMOTE, POD.address, 53, 40001)
    assert (flow["source"], flow["source_port"]) == (str(REMOTE), 53)
    assert flow["next"]["program"] == "from_nic"
    assert flow["back"]["next"]["program"] == "from_pod"


def test_two_pods_of_the_node(reader):
    """Between two pods of the node each direction has its own pod's program and its own half."""
    one_way = replace(APPROVED, flows=frozenset([Approval(tuple=LOCAL_UDP, into=None)]))
    (flow,) = ask(reader(one_way), POD.address, NEIGHBOUR.address)
    assert (flow["next"]["program"], flow["next"]["verdict"]) == ("from_pod", "switched")
    back = flow["back"]["next"]
    assert (back["program"], back["verdict"]) == ("from_pod", "flow_half")
    (flow,) = ask(reader(one_way), NEIGHBOUR.address, POD.address)
    assert (flow["next"]["program"], flow["next"]["verdict"]) == ("from_pod", "flow_half")
    assert flow["back"]["next"]["verdict"] == "switched"


def test_a_new_flow(reader):
    """Where there is no flow the answer is about one that would begin now."""
    empty = replace(APPROVED, flows=frozenset())
    (flow,) = ask(reader(empty), POD.address, REMOTE)
    assert (flow["protocol"], flow["source_port"], flow["verdict"]) == ("tcp", None, "tcp_control")
    (flow,) = ask(reader(empty), POD.address, REMOTE, protocol=17)
    assert flow["verdict"] == "flow_unknown"


def test_a_connection_without_a_record(reader):
    """What conntrack follows is answered for, with its state and its translation."""
    empty = replace(APPROVED, flows=frozenset())
    served, behind = (
        Tuple(POD.address, remote, 40000, port, 6)
        for remote, port in ((OUTSIDE, 80), (REMOTE, 8080))
    )
    made = reader(empty, connection_of(served, behind=behind))
    (flow,) = ask(made, POD.address, OUTSIDE)
    assert (flow["state"], flow["verdict"]) == ("established", "no_peer")
    assert flow["translated"]["destination"] == str(REMOTE)
    assert flow["translated"]["destination_port"] == 8080
    assert "netfilter translates" in flow["reason"]


def test_what_is_no_accelerated_pod(reader):
    """An address beside a peer's that is no pod's here has no program that sees what it sends."""
    (flow,) = ask(reader(), UNKNOWN, REMOTE)
    assert flow["verdict"] == "no_pod"
    assert flow["next"]["program"] is None
    assert flow["back"]["next"]["verdict"] == "no_pod"


def test_neither_end_is_here(reader):
    """A question about other nodes is refused with where to ask it."""
    with pytest.raises(ConfigError, match="run it on the node of one of them"):
        ask(reader(), OUTSIDE, OUTSIDE + 1)


def test_a_pod_and_itself(reader):
    """What a pod sends to itself never leaves it, so nothing is said of it."""
    with pytest.raises(ConfigError, match="is both ends, and no program sees what a pod sends to"):
        ask(reader(), POD.address, POD.address, 40000, 80)


def test_text_of_one_and_of_several(reader):
    """One flow is told in lines, several in a table; an echo's type is no port; notes come last."""
    made = reader()
    one = _text({"flows": ask(made, POD.address, REMOTE, 40001, 53), "notes": ["no agent listens"]})
    lines = one.splitlines()
    assert lines[0] == f"flow         {POD.address}:40001 -> {REMOTE}:53 udp"
    assert "next packet  from_pod: encapsulated (a datagram)" in lines
    assert lines[-1] == "note: no agent listens"
    made.names = {POD.address: "shop/web"}
    named = _text({"flows": ask(made, POD.address, REMOTE, 40001, 53), "notes": []})
    assert "pods         shop/web -> -" in named
    several = _text({"flows": ask(made, POD.address, REMOTE), "notes": []})
    assert several.startswith("PROTOCOL")
    assert f"{REMOTE}:8 " not in several


PORTS = "Give both ports to see the reason for one."
IDENTIFIER = "Give SOURCE as it stands here to see the reason for one echo."


@pytest.mark.parametrize(
    ("chosen", "advice"),
    [
        ({"tcp", "udp"}, [PORTS]),
        ({"icmp"}, [IDENTIFIER]),
        ({"tcp", "icmp"}, [PORTS, IDENTIFIER]),
    ],
)
def test_what_chooses_one_flow(reader, chosen, advice):
    """Nobody is asked for the ports of an echo; its identifier, as it is shown, finds it."""
    made = reader()
    flows = [flow for flow in ask(made, POD.address, REMOTE) if flow["protocol"] in chosen]
    shown = _text({"flows": flows, "notes": []}).splitlines()
    assert [line for line in shown if line.startswith("Give")] == advice
    echoes = [line.split()[1] for line in shown if line.startswith("icmp")]
    for end in echoes:
        (flow,) = ask(made, POD.address, REMOTE, int(end.partition(":")[2]), None)
        assert (flow["protocol"], f"{flow['source']}:{flow['source_port']}") == ("icmp", end)
