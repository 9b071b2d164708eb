# SPDX-License-Identifier: Apache-2.0
"""Labs made so quiet that every packet counted is one that a test sent."""

import contextlib
import itertools
import socket

import pytest
from taps import socket_in
from wire import OPEN_PORT, Wire

SETTINGS = {
    "net.ipv4.igmp_link_local_mcast_reports": (1, 0),
    "net.ipv6.conf.all.disable_ipv6": (0, 1),
    # One error a second by default; a probe that is sent twice must be answered twice.
    "net.ipv4.icmp_ratelimit": (1000, 0),
}
"""name -> (as it was, as it is here)"""


@pytest.fixture(scope="module")
def wire(lab):
    """The shared lab under taps, quiet; other folders' tests get it as it was."""
    with _quiet(lab) as wire:
        yield wire


@pytest.fixture
def strict_wire(make_lab):
    """A lab whose agents run with --strict, under taps, quiet."""
    lab = make_lab(nodes=3, pods_per_node=2, kernel_only=1, agent_options=["--strict"])
    with _quiet(lab) as wire:
        yield wire


@pytest.fixture
def plain(wire):
    """A packet of a flow of its own, as SENDER sends it to RECEIVER."""
    return wire.from_pod(wire.fresh_flow(b"0123456789"))


@contextlib.contextmanager
def _quiet(lab):
    """Neighbours know each other for good, somebody listens in each pod, and nobody speaks."""
    wire = Wire(lab)
    with contextlib.ExitStack() as stack:
        stack.callback(wire.close)
        for place in (*wire.all_nodes, *wire.pods):
            stack.enter_context(_settings(lab, place))
        for pod in wire.pods:
            stack.enter_context(_listener(lab, pod))
        for place, address, mac, device in _neighbours(wire):
            entry = ["neighbour", "replace", address, "lladdr", mac, "dev", device]
            lab.exec(place, "ip", *entry, "nud", "permanent")
            stack.callback(lab.exec, place, "ip", "neighbour", "del", address, "dev", device)
        yield wire


@contextlib.contextmanager
def _settings(lab, place):
    lab.exec(place, "sysctl", "-qw", *(f"{name}={here}" for name, (_, here) in SETTINGS.items()))
    yield
    lab.exec(place, "sysctl", "-qw", *(f"{name}={was}" for name, (was, _) in SETTINGS.items()))


@contextlib.contextmanager
def _listener(lab, pod):
    """A socket that takes probes, so that none is answered with "port unreachable"."""
    with socket_in(lab.netns(pod), socket.SOCK_DGRAM) as listener:
        listener.bind(("", OPEN_PORT))
        yield


def _neighbours(wire):
    """(who, whose address, whose MAC, on which device): all that would be asked for by ARP."""
    for pod in wire.pods:
        node = pod.partition("-")[0]
        gateway = str(wire.lab.node(node).pod_cidr[1])
        yield pod, gateway, wire.mac(node, "cni0"), "eth0"
        yield node, wire.lab.address(pod), wire.mac(pod), "cni0"
    for pod, other in itertools.permutations(wire.pods, 2):
        if pod.partition("-")[0] == other.partition("-")[0]:
            yield pod, wire.lab.address(other), wire.mac(other), "eth0"
    for node, other in itertools.permutations(wire.all_nodes, 2):
        yield node, wire.lab.address(other), wire.mac(other), "eth0"
