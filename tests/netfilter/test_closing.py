# SPDX-License-Identifier: Apache-2.0
"""The end of a connection is bypassed; conntrack follows it by copies that nobody else gets."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from dataclasses import replace

import pytest
from closing import ENDS, Ears, client_closes, pour, server_closes
from paths import came, ruleset
from standing import entered
from test_silence import CLIENT, NODES, SERVER, connection, entry, speak

from vxlane.errors import LabError
from vxlane.host import conntrack, sysctls
from vxlane.lab.waiting import wait_for

NEIGHBOUR, STOCK = "node1-pod2", "node3-pod1"
NO_DEVICE = 1 << 30
ANY_SERVER = pytest.mark.parametrize(
    "server", [SERVER, NEIGHBOUR], ids=["another-node", "same-node"]
)


@contextlib.contextmanager
def still(lab, node):
    """Have an agent write nothing inside the block, whose lease lasts for some seconds."""
    pid = lab.agent_pid(node)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def own_lab(make_module_lab):
    """Two nodes whose rules and maps tests may spoil."""
    return make_module_lab(nodes=2, pods_per_node=2, kernel_only=0)


@contextlib.contextmanager
def approved(lab, server):
    """Both ends of a connection that was bypassed already."""
    with connection(lab, server) as (client, accepted):
        speak(client, accepted, 3)
        speak(accepted, client, 3)
        yield client, accepted


def entries(lab, client, server):
    """By node: the state of the client's entry, and its time left in tens of seconds, rounded."""
    found = {node: entry(lab, node, client, server) for node in NODES}
    return {node: (state, round(left / 10)) for node, (state, left) in found.items()}


def history(lab, server, steps, expected=()):
    """The entries after each step of an end; those that are `expected` may take a moment."""
    found = []
    with approved(lab, server) as (client, accepted):
        for number, step in enumerate(steps):
            step(client, accepted)
            if expected:
                with contextlib.suppress(LabError):  # What is there instead is for the comparison.
                    wait_for(
                        lambda n=number, c=client: entries(lab, c, server) == expected[n],
                        "",
                        seconds=2,
                    )
            else:
                time.sleep(0.1)
            found.append(entries(lab, client, server))
    return found


@ANY_SERVER
@pytest.mark.parametrize("end", ENDS)
def test_states(lab, kernel_lab, server, end):
    """After each step of an end the entries have the states and timeouts of stock.

    SYN, SYN-ACK and RST take the kernel path, and nothing else does.
    """
    theirs = history(kernel_lab, server, ENDS[end])
    with lab.verdicts("node1") as seen:
        ours = history(lab, server, ENDS[end], theirs)
    assert ours == theirs
    control = came(seen, "from_pod", "tcp_control") + came(seen, "from_nic", "tcp_control")
    assert control == (3 if "RST" in end else 2)


def told(lab, server):
    """By node: the first two states of which conntrack tells its listeners, and the last one."""
    argv = f"conntrack -E -e UPDATES -p tcp -s {lab.address(CLIENT)}".split()
    with contextlib.ExitStack() as stack:
        # Of a connection that began before anybody listened newer kernels tell nothing.
        listeners = {
            node: stack.enter_context(lab.spawn(node, *argv, stdout=subprocess.PIPE))
            for node in NODES
        }
        for node in NODES:
            wait_until_heard(lab, node)
        with approved(lab, server) as (client, accepted):
            for step in ENDS["client first"]:
                step(client, accepted)
            time.sleep(0.2)
            ours = rf" tcp +6 \d+ (\w+) .* sport={client.getsockname()[1]} "
        found = {}
        for node, listener in listeners.items():
            listener.terminate()
            states = re.findall(ours, listener.communicate()[0])
            found[node] = (*states[:2], *states[-1:])
    return found


def wait_until_heard(lab, node):
    """Until a listener that has just begun listens, and the node's agent, if any, knows of it."""

    def is_heard():
        with entered(lab.netns(node)):
            return conntrack.is_heard()

    wait_for(is_heard, f"a listener on {node}")
    if lab.agent_pid(node) is not None:
        with lab.maps(node) as maps:
            wait_for(lambda: maps.settings().heard, f"the agent of {node}")


@ANY_SERVER
def test_events(lab, kernel_lab, server):
    """Who listens to conntrack hears that a connection opens and has ended, as on stock nodes."""
    theirs = told(kernel_lab, server)
    assert theirs["node1"] == ("SYN_RECV", "ESTABLISHED", "TIME_WAIT")
    assert told(lab, server) == theirs


def check_each_heard_once(ears, server):
    """Both ends heard each packet and one FIN, nobody else any, and conntrack copies."""
    assert ears.repeated() == []
    assert ears.hearers() == {CLIENT, server}
    assert [ears.fins(pod) for pod in (CLIENT, server)] == [1, 1]
    assert ears.copies()


@pytest.mark.parametrize(
    "server", [SERVER, NEIGHBOUR, STOCK], ids=["another-node", "same-node", "stock-node"]
)
def test_nobody_gets_a_copy(lab, server):
    """Each packet of an end arrives once, and where it is for; no pod on the bridge gets a copy."""
    with approved(lab, server) as (client, accepted), Ears(lab, client) as ears:
        for step in ENDS["half-closed stream"]:
            step(client, accepted)
        time.sleep(0.1)
    check_each_heard_once(ears, server)


@ANY_SERVER
def test_without_rules(own_lab, server):
    """A node that loses all its rules in the middle of an end sends no copy on."""
    with approved(own_lab, server) as (client, accepted), Ears(own_lab, client) as ears:
        client_closes(client, accepted)
        for node in NODES:
            own_lab.exec(node, "nft", "flush", "ruleset")
        pour(accepted, client, 1 << 20)
        server_closes(client, accepted)
        time.sleep(0.1)
    check_each_heard_once(ears, server)


def test_no_copy_of_what_comes_in(own_lab):
    """A FIN of which the kernel takes no copy reaches the pod, also past a strict rp_filter.

    What follows tells conntrack that the connection closes.
    """
    strict = (f"net/ipv4/conf/{device}/rp_filter=1" for device in ("all", "eth0"))
    own_lab.exec("node2", "sysctl", "-qw", *strict)
    with approved(own_lab, SERVER) as (client, accepted), own_lab.maps("node2") as maps:
        known = maps.settings()
        with still(own_lab, "node2"), Ears(own_lab, client) as ears:
            maps.put_settings(replace(known, vtep=NO_DEVICE))
            client_closes(client, accepted)
            time.sleep(0.1)
            shown, _ = entry(own_lab, "node2", client)
            maps.put_settings(known)
        assert ears.fins(SERVER) == 1
        assert ears.repeated() == []
        assert shown == "ESTABLISHED"
        server_closes(client, accepted)
        time.sleep(0.1)
        assert entry(own_lab, "node2", client)[0] == "CLOSE_WAIT"


def test_no_copy_of_what_goes_out(own_lab):
    """A FIN of which the kernel takes no copy goes by the kernel path, as the pod sent it."""
    with approved(own_lab, SERVER) as (client, accepted), own_lab.maps("node1") as maps:
        pod = next(pod for at, pod in maps.pods().items() if str(at) == own_lab.address(CLIENT))
        with own_lab.verdicts("node1") as seen, Ears(own_lab, client) as ears:
            # The devmap takes a veth of the namespace that its writer is in.
            with entered(own_lab.netns("node1")):
                maps.put_pod(replace(pod, bridge=NO_DEVICE))
                client_closes(client, accepted)
                maps.put_pod(pod)
            time.sleep(0.1)
            shown, _ = entry(own_lab, "node1", client)
        assert came(seen, "from_pod", "tcp_control") == 1
        assert ears.repeated() == []
        assert ears.hearers() <= {CLIENT, SERVER}
        assert ears.fins(SERVER) == 1
        assert shown == "CLOSE_WAIT"


SEEN = """\
table ip seen {
 chain before { type filter hook prerouting priority -300
  ip saddr 10.42.0.0/16 ip daddr 10.42.0.0/16 counter
 }
 chain behind { type filter hook prerouting priority -150
  ip saddr 10.42.0.0/16 ip daddr 10.42.0.0/16 counter
 }
}
"""


def seen_by_netfilter(lab, server):
    """How many packets of one connection meet netfilter on node1, which has the table `seen`:
    before conntrack and behind it.
    """

    def counts():
        listed = lab.exec("node1", "nft", "list", "table", "ip", "seen").stdout
        return [int(count) for count in re.findall(r"counter packets (\d+)", listed)]

    earlier = counts()
    with approved(lab, server) as (client, accepted):
        for step in ENDS["client first"]:
            step(client, accepted)
        time.sleep(0.1)
    return tuple(now - then for now, then in zip(counts(), earlier, strict=True))


@ANY_SERVER
def test_a_copy_ends_behind_conntrack(make_module_lab, server):
    """No rule behind conntrack meets the ACKs and FINs of which it was shown copies."""
    lab = make_module_lab(nodes=2, pods_per_node=2, kernel_only=0)
    with ruleset(lab, "node1"):
        lab.exec("node1", "nft", "-f", "-", stdin=SEEN)
    before, behind = seen_by_netfilter(lab, server)
    assert (before - behind, behind) == (4, 2)


def test_bridge_without_netfilter(own_lab):
    """Where bridged packets pass no netfilter, conntrack is shown none of them.

    Of what is routed it is: the count says something.
    """
    own_lab.exec("node1", "nft", "-f", "-", stdin=SEEN)
    own_lab.exec("node1", "sysctl", "-qw", f"{sysctls.BRIDGE_NETFILTER}=0")
    own_lab.kill_agent("node1")
    own_lab.start_agent("node1")  # Until it has read the rules, nothing is bypassed.
    own_lab.ask("node1", op="bypass", enabled=False)
    of_kernel_path = seen_by_netfilter(own_lab, NEIGHBOUR)
    own_lab.ask("node1", op="bypass", enabled=True)
    with own_lab.verdicts("node1") as seen:
        assert seen_by_netfilter(own_lab, NEIGHBOUR) == of_kernel_path == (0, 0)
    assert came(seen, "from_pod", "switched") >= 6
    assert all(seen_by_netfilter(own_lab, SERVER))
