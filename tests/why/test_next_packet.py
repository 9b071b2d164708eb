# SPDX-License-Identifier: Apache-2.0
"""What `vxlane why` foretells is what the next packet meets, by the counters of the programs.

One lab for all. Each test leaves it as it was; the last one has its agent killed.
"""

from __future__ import annotations

import contextlib
import socket

import pytest
from foresight import PORT, Stream, asked, document, foretold, line, met, stream
from taps import inside

from vxlane.lab import service
from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for
from vxlane.why import slow

AGENT = ("--revalidate", "600")


@pytest.fixture(scope="module")
def pair(make_module_lab):
    """Two nodes with two pods each."""
    return make_module_lab(nodes=2, pods_per_node=2, kernel_only=0, agent_options=AGENT)


@pytest.fixture
def stack():
    """Closes the sockets of a test."""
    with contextlib.ExitStack() as made:
        yield made


def confirm(pair, node, ends, protocol, send, *, back=False):
    """What is foretold for a packet on `node` is what `send` has it meet; its verdict."""
    answer = asked(pair, node, *ends, protocol)
    place, verdict = foretold(answer["back"] if back else answer)
    assert met(pair, node, send, place) == {(place, verdict)}
    return verdict


def approve(pair, talk):
    """Have a flow of node1 bypassed, whatever an earlier test has changed a moment ago."""

    def is_bypassed():
        talk.there()
        talk.back()
        answer = asked(pair, "node1", *talk.ends, "udp")
        return answer["verdict"] == answer["back"]["verdict"] == "bypassed"

    wait_for(is_bypassed, "a bypassed flow")


def test_datagrams_between_two_nodes(pair, stack):
    """Each packet of a new UDP flow, there and back, is foretold on its sender's node."""
    talk = line(stack, pair, "node1-pod1", "node2-pod1")
    there, back = [], []
    for _ in range(3):
        there.append(confirm(pair, "node1", talk.ends, "udp", talk.there))
        back.append(confirm(pair, "node1", talk.ends, "udp", talk.back, back=True))
    assert there == ["flow_unknown", "encapsulated", "encapsulated"]
    assert back == ["flow_half", "decapsulated", "decapsulated"]


def test_datagrams_seen_from_the_other_node(pair, stack):
    """The receiver's node foretells the same flow at its own programs."""
    talk = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 1)
    there, back = [], []
    for _ in range(2):
        there.append(confirm(pair, "node2", talk.ends, "udp", talk.there))
        back.append(confirm(pair, "node2", talk.ends, "udp", talk.back, back=True))
    assert there == ["flow_unknown", "decapsulated"]
    assert back == ["flow_half", "encapsulated"]


def test_pods_of_one_node(pair, stack):
    """Between two pods of a node both directions are foretold at their own programs."""
    talk = line(stack, pair, "node1-pod1", "node1-pod2")
    there, back = [], []
    for _ in range(3):
        there.append(confirm(pair, "node1", talk.ends, "udp", talk.there))
        back.append(confirm(pair, "node1", talk.ends, "udp", talk.back, back=True))
    assert (there[0], there[2], back[2]) == ("flow_unknown", "switched", "switched")


def test_one_way_datagrams(pair, stack):
    """UDP that nobody answers is bypassed, and the answer that has not come would be half."""
    talk = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 2)
    talk.there()
    assert confirm(pair, "node1", talk.ends, "udp", talk.there) == "encapsulated"
    answer = asked(pair, "node1", *talk.ends, "udp")
    assert (answer["verdict"], answer["back"]["verdict"]) == ("bypassed", "flow_half")


def test_a_connection(pair, stack):
    """A new connection's SYN, its data, and what follows a FIN are foretold."""
    ends = pair.address("node1-pod1"), f"{pair.address('node2-pod1')}:{PORT}"
    made: list[Stream] = []
    assert foretold(asked(pair, "node1", *ends, "tcp")) == ("from_pod", "tcp_control")
    moved = met(
        pair,
        "node1",
        lambda: made.append(stream(stack, pair, "node1-pod1", "node2-pod1")),
        "from_pod",
    )
    assert ("from_pod", "tcp_control") in moved
    (talk,) = made
    talk.there()
    talk.back()
    assert confirm(pair, "node1", talk.ends, "tcp", talk.there) == "encapsulated"
    assert confirm(pair, "node1", talk.ends, "tcp", talk.back, back=True) == "decapsulated"
    assert asked(pair, "node1", *talk.ends, "tcp")["state"] == "established"
    talk.client.shutdown(socket.SHUT_WR)
    assert not talk.server.recv(1)
    assert confirm(pair, "node1", talk.ends, "tcp", talk.back, back=True) == "decapsulated"


def test_an_echo_that_is_not_answered(pair, stack):
    """An echo needs both halves: while no answer comes its requests stay on the kernel path."""
    setting = "net.ipv4.icmp_echo_ignore_all"
    source, target = pair.address("node1-pod1"), pair.address("node2-pod1")
    end = stack.enter_context(inside(pair.netns("node1-pod1"), _icmp))

    def ping():
        end.sendto(_echo(77, len(sent)), (target, 0))
        sent.append(1)

    sent: list[int] = []
    pair.exec("node2-pod1", "sysctl", "-qw", f"{setting}=1")
    stack.callback(pair.exec, "node2-pod1", "sysctl", "-qw", f"{setting}=0")
    assert confirm(pair, "node1", (f"{source}:77", target), "icmp", ping) == "flow_unknown"
    wait_for(lambda: _verdict(pair, f"{source}:77", target, "icmp") == "flow_half", "its half")
    assert confirm(pair, "node1", (f"{source}:77", target), "icmp", ping) == "flow_half"
    pair.exec("node2-pod1", "sysctl", "-qw", f"{setting}=0")
    ping()
    wait_for(lambda: _verdict(pair, f"{source}:77", target, "icmp") == "bypassed", "its answer")
    assert confirm(pair, "node1", (f"{source}:77", target), "icmp", ping) == "encapsulated"


def test_a_service(pair, stack):
    """A flow to a Service is foretold by its address and by its backend's, until its age is up."""
    service.provide(pair.netns("node1"), pair.pod("node2-pod1").address)
    stack.callback(pair.exec, "node1", "nft", "delete", "table", "ip", "service")
    virtual = str(service.VIRTUAL)
    talk = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 3, target=virtual)
    assert confirm(pair, "node1", talk.ends, "udp", talk.there) == "no_peer"
    confirm(pair, "node1", talk.ends, "udp", talk.back, back=True)
    for _ in range(3):
        talk.there()
        talk.back()
    assert confirm(pair, "node1", talk.ends, "udp", talk.there) == "nat"
    assert confirm(pair, "node1", talk.ends, "udp", talk.back, back=True) == "nat"
    by_backend = talk.ends[0], f"{pair.address('node2-pod1')}:{PORT + 3}"
    assert asked(pair, "node1", *by_backend)["destination"] == virtual
    wait_for(lambda: _verdict(pair, *talk.ends, "udp") == "flow_aged", "age of the approval")
    assert confirm(pair, "node1", talk.ends, "udp", talk.there) == "flow_aged"


def test_a_connection_to_a_service(pair, stack):
    """A TCP connection to a Service is foretold as translated, in both directions."""
    service.provide(pair.netns("node1"), pair.pod("node2-pod1").address)
    stack.callback(pair.exec, "node1", "nft", "delete", "table", "ip", "service")
    virtual = str(service.VIRTUAL)
    wait_for(lambda: _verdict(pair, pair.address("node1-pod1"), virtual) != "judged", "reading")
    talk = stream(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 4, target=virtual)
    for _ in range(3):
        talk.there()
        talk.back()
    assert confirm(pair, "node1", talk.ends, "tcp", talk.there) == "nat"
    assert confirm(pair, "node1", talk.ends, "tcp", talk.back, back=True) == "nat"


def test_what_was_withdrawn(pair, stack):
    """After a flush a flow that was bypassed is foretold to be withdrawn."""
    talk = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 5)
    approve(pair, talk)
    pair.ask("node1", op="flush")
    assert confirm(pair, "node1", talk.ends, "udp", talk.there) == "flow_withdrawn"


def test_no_peer(pair, stack):
    """An address that is no pod's of any node is no peer's."""
    talk = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 6, target="10.99.0.9")
    assert confirm(pair, "node1", talk.ends, "udp", talk.lost) == "no_peer"


def test_no_node_is_a_pod(pair):
    """A node's own address is named as what it is: a peer's, this node's, the gateway's."""
    pod = pair.address("node1-pod1")
    peer, own, gateway = (
        _reason(pair, pod, to) for to in (pair.address("node2"), pair.address("node1"), "10.42.1.1")
    )
    assert peer.startswith(f"{pair.address('node2')} is the address of the node of 10.42.2.0/24")
    assert own.startswith(f"{pair.address('node1')} is this node's own address on ")
    assert "gateway" not in own
    assert gateway.startswith("10.42.1.1 is this node's own address on cni0, its pods' gateway")
    assert _reason(pair, pod, "10.42.1.250").endswith("own pod CIDR, but no pod has it")


def test_no_pod(pair, stack):
    """On the node of an address that no pod has, what a peer sends for it finds no pod."""
    talk = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 7, target="10.42.2.250")
    assert confirm(pair, "node2", talk.ends, "udp", talk.lost) == "no_pod"


def test_largest_packet(pair, stack):
    """The largest packet that is named is bypassed, and one byte more is too big."""
    talk = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 8)
    veth = pair.pod("node1-pod1").veth
    for where, device in (("node1", veth), ("node1-pod1", "eth0")):
        pair.exec(where, "ip", "link", "set", device, "mtu", "1500")
        stack.callback(pair.exec, where, "ip", "link", "set", device, "mtu", "1450")
    approve(pair, talk)
    largest = asked(pair, "node1", *talk.ends, "udp")["largest_packet"]
    full = bytes(largest - 28)
    bypassed, too_big = {("from_pod", "encapsulated")}, {("from_pod", "too_big")}
    assert met(pair, "node1", lambda: talk.there(full), "from_pod") == bypassed
    assert met(pair, "node1", lambda: talk.client.sendto(full + b"+", talk.target), "from_pod") == (
        too_big
    )


def test_a_guarded_pod(pair, stack):
    """What a shaped pod is sent is foretold to be guarded, and the shaper is named."""
    talk = line(stack, pair, "node2-pod1", "node1-pod1", port=PORT + 9)
    veth = pair.pod("node1-pod1").veth
    tbf = ("root", "tbf", "rate", "100mbit", "burst", "100k", "latency", "1s")
    pair.exec("node1", "tc", "qdisc", "add", "dev", veth, *tbf)
    stack.callback(pair.exec, "node1", "tc", "qdisc", "del", "dev", veth, "root")
    wait_for(lambda: _verdict(pair, *talk.ends, "udp") == "guarded", "sight of the shaper")
    assert confirm(pair, "node1", talk.ends, "udp", talk.there) == "guarded"
    answer = asked(pair, "node1", *talk.ends, "udp")
    assert f"{veth} of {pair.address('node1-pod1')} has the qdisc tbf" in answer["reason"]
    assert f"tc qdisc show dev {veth}" in answer["command"]
    # TCP goes both ways or not at all.
    assert _verdict(pair, *talk.ends[::-1], "tcp") == "guarded"


def test_a_judged_pod(pair, stack):
    """What a rate limit is about is foretold to be judged, and the rule is named."""
    talk = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 10)
    rule = f"ip saddr {pair.address('node1-pod1')} limit rate 1000/second accept"
    rules = "table ip limits { chain forward { type filter hook forward priority 0; %s; }; }"
    pair.exec("node1", "nft", rules % rule)
    stack.callback(pair.exec, "node1", "nft", "delete", "table", "ip", "limits")
    wait_for(lambda: "limit in" in _reason(pair, *talk.ends, "udp"), "reading of the rule")
    assert confirm(pair, "node1", talk.ends, "udp", talk.there) == "judged"


def test_another_mac(pair, stack):
    """A pod whose interface has another MAC than it was told with is foretold to be spoofing."""
    talk = line(stack, pair, "node1-pod2", "node2-pod1", port=PORT + 14)
    own = pair.pod("node1-pod2").mac

    def give(mac):
        pair.exec("node1-pod2", "ip", "link", "set", "eth0", "address", mac)

    give("0a:58:00:00:77:77")
    stack.callback(give, own)
    assert confirm(pair, "node1", talk.ends, "udp", talk.lost) == "spoofed_mac"


def test_flows_that_are_slow(pair, stack):
    """The busiest flow that is not bypassed is listed first by conntrack's bytes, or by recency.

    A flow that is bypassed is not listed.
    """
    setting = "net.netfilter.nf_conntrack_acct"
    state = pair.node("node1").directory
    fast = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 11)
    approve(pair, fast)
    pair.exec("node1", "sysctl", "-qw", f"{setting}=1")
    stack.callback(pair.exec, "node1", "sysctl", "-qw", f"{setting}=0")
    node = pair.address("node2")
    outside = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 12, target=node)
    for _ in range(20):
        outside.client.sendto(bytes(1000), outside.target)

    def listed():
        return inside(pair.netns("node1"), lambda: slow.slow_flows(state))

    by_bytes = listed()
    assert by_bytes["order"] == slow.BY_BYTES
    first = by_bytes["flows"][0]
    assert (first["destination"], first["verdict"]) == (node, "no_peer")
    assert first["bytes"] >= 20 * 1028
    assert PORT + 11 not in {flow["destination_port"] for flow in by_bytes["flows"]}
    pair.exec("node1", "sysctl", "-qw", f"{setting}=0")
    by_recency = listed()
    assert by_recency["order"] == slow.BY_RECENCY
    ages = [flow["idle_seconds"] for flow in by_recency["flows"]]
    assert ages == sorted(ages)


def test_the_command(pair):
    """The command prints the answer for people, by a veth's name, and one sentence of a mistake.

    The shell completes the veth.
    """
    env = {"VXLANE_STATE_DIR": str(pair.node("node1").directory)}
    veth, target = pair.pod("node1-pod1").veth, pair.address("node2-pod1")
    shown = pair.exec("node1", program("vxlane"), "why", veth, f"{target}:1", env=env).stdout
    assert "next packet  from_pod: tcp_control" in shown
    assert "docs/verdicts/tcp_control.md" in shown
    completing = env | {"_VXLANE_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    words = {"COMP_WORDS": f"vxlane why {veth[:6]}"}
    offered = pair.exec("node1", program("vxlane"), env=completing | words).stdout
    assert f"plain,{veth}\n" in offered
    failed = pair.exec("node1", program("vxlane"), "why", "nobody", target, env=env, check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("vxlane: 'nobody': no pod of this node is known by that name;")
    assert failed.stderr.count("\n") == 1


def test_a_node_without_an_agent(pair, stack):
    """When a killed agent's lease has run out the answer says so, from the maps that it left."""
    talk = line(stack, pair, "node1-pod1", "node2-pod1", port=PORT + 13)
    approve(pair, talk)
    pair.kill_agent("node1")
    wait_for(lambda: _verdict(pair, *talk.ends, "udp") == "no_agent", "end of the lease")
    (note,) = document(pair, "node1", *talk.ends, "udp")["notes"]
    assert note.startswith("no agent listens on")
    assert confirm(pair, "node1", talk.ends, "udp", talk.there) == "no_agent"
    assert confirm(pair, "node1", talk.ends, "udp", talk.back, back=True) == "no_agent"


def _verdict(pair, *question):
    return asked(pair, "node1", *question)["verdict"]


def _reason(pair, *question):
    return asked(pair, "node1", *question)["reason"]


def _icmp():
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def _echo(identifier, number):
    head = bytes([8, 0, 0, 0]) + identifier.to_bytes(2, "big") + number.to_bytes(2, "big")
    total = sum(int.from_bytes(head[i : i + 2], "big") for i in range(0, len(head), 2))
    return head[:2] + (0xFFFF - (total & 0xFFFF) - (total >> 16)).to_bytes(2, "big") + head[4:]
