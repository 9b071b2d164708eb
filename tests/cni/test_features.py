# SPDX-License-Identifier: Apache-2.0
"""What users chain beside us works on with programs on the veth, in the orders that there are.

The pods of a lab with real agents, made by chains of the test's own.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from vxlane.lab import namespaces, pods, traffic
from vxlane.runtime.chain import ContainerInterface

STREAM = Path(__file__).parent.parent / "lab" / "stream.py"
MB = 1 << 20
PORT, HOST_PORT = 7100, 8080

PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
BANDWIDTH = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
ORDERS = {
    "kubeadm": ("0.3.1", "bridge", PORTMAP, "chained"),
    "k3s": ("1.0.0", "bridge", PORTMAP, BANDWIDTH, "chained"),
    "main": ("1.0.0", "main", PORTMAP, BANDWIDTH),
    "installed": ("1.0.0", "main, attaching later", PORTMAP, BANDWIDTH, "chained"),
}
"""Version and plugins of lists; a word is one of the lab's own, see Maker."""
MAPPED = {"portMappings": [{"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"}]}


class Maker:
    """Makes pods on node1 of a lab, with lists of plugins of the test's."""

    def __init__(self, lab, make_netns):
        self.usual = pods.chain(lab.node("node1"))
        self._make_netns = make_netns
        self._made = []
        bridge, chained = self.usual.conflist["plugins"]
        main = {
            **chained,
            "delegate": {"hairpinMode": True, "isDefaultGateway": True},
            "ipam": {"dataDir": bridge["ipam"]["dataDir"]},
            "subnetFile": str(lab.node("node1").directory / "subnet.env"),
            "dataDir": str(self.usual.cache / "flannel"),
        }
        later = {**main, "accelerate": False}
        self.named = {"bridge": bridge, "chained": chained, "main": main}
        self.named["main, attaching later"] = later

    def add(self, version, *plugins, **capabilities):
        """One pod; its namespace and address."""
        listed = [self.named[each] if isinstance(each, str) else each for each in plugins]
        conflist = {**self.usual.conflist, "cniVersion": version, "plugins": listed}
        chain = dataclasses.replace(self.usual, conflist=conflist)
        name = self._make_netns(f"pod{len(self._made)}")
        pod = ContainerInterface(name, namespaces.path(name), capabilities=capabilities)
        self._made.append((chain, pod))
        result = chain.add(pod)
        return name, result["ips"][0]["address"].partition("/")[0]

    def check_all(self):
        """CHECK every pod by its list."""
        for chain, pod in self._made:
            chain.check(pod)

    def remove_all(self):
        """Undo every ADD."""
        for chain, pod in self._made:
            chain.delete(pod)


@pytest.fixture
def made(lab, make_netns):
    """A maker of pods, which go at the end."""
    maker = Maker(lab, make_netns)
    yield maker
    maker.remove_all()


def exchange(client, server, host, *, port=PORT, count=20 * MB):
    """Send `count` bytes both ways at once between two namespaces; they must arrive unchanged."""
    serve = [sys.executable, str(STREAM), "serve", str(PORT), str(count)]
    with subprocess.Popen(
        namespaces.inside(server, serve), stdout=subprocess.PIPE, text=True
    ) as listener:
        try:
            assert listener.stdout.readline() == "listening\n"
            connect = [sys.executable, str(STREAM), "connect", f"{host}:{port}", str(count)]
            sent, received = namespaces.run(client, *connect, timeout=50).stdout.split()
            assert listener.communicate(timeout=5)[0].split() == [received, sent]
        finally:
            listener.kill()


def rate(client, server, address):
    """Mbit/s that one TCP connection delivers."""
    return traffic.tcp(traffic.Ends(client, server, address), seconds=3) / 1e6


@pytest.mark.parametrize("order", ORDERS)
def test_pods_of_every_order_are_accelerated(lab, made, order):
    """A pod of every order has its own flows between nodes bypassed, both ways."""
    name, address = made.add(*ORDERS[order])
    with lab.verdicts("node1") as seen:
        exchange(lab.netns("node2-pod1"), name, address)
    assert seen["from_pod", "encapsulated"] > 100
    assert seen["from_nic", "decapsulated"] > 100


@pytest.mark.parametrize("order", ["main", "installed"])
def test_check_by_every_plugin(lab, made, order):
    """With our programs on the veth, and after traffic, no plugin of the list finds fault.

    Not behind the lab's own bridge, whose CHECK fails for every pod with flannel's routes, and
    without a mapped port, for which portmap 1.1 looks in ip6tables too, whatever the pod's family.
    """
    limit = {"ingressRate": 20_000_000, "ingressBurst": 200_000}
    name, address = made.add(*ORDERS[order], bandwidth=limit)
    exchange(lab.netns("node2-pod1"), name, address, count=MB)
    made.check_all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("client", ["node2", "node2-pod1", "node3-pod1", "node1-pod1"])
def test_mapped_port(lab, made, order, client):
    """A host port serves another node, and pods of other nodes and of this one, by the kernel."""
    name, _ = made.add(*ORDERS[order], **MAPPED)
    with lab.verdicts("node1") as seen:
        exchange(lab.netns(client), name, lab.address("node1"), port=HOST_PORT)
    assert seen["from_pod", "encapsulated"] == 0
    assert seen["from_pod", "switched"] == 0


def test_hairpin(lab, made):
    """A pod reaches itself through its own host port."""
    name, _ = made.add(*ORDERS["kubeadm"], **MAPPED)
    exchange(name, name, lab.address("node1"), port=HOST_PORT)


def test_mapped_port_beside_direct_flows(lab, made):
    """The same two pods talk over a host port and directly, at once and in turns."""
    name, address = made.add(*ORDERS["kubeadm"], **MAPPED)
    for _ in range(3):
        exchange(lab.netns("node2-pod1"), name, lab.address("node1"), port=HOST_PORT, count=MB)
        exchange(lab.netns("node2-pod1"), name, address, count=MB)


@pytest.mark.parametrize("order", ["k3s", "main", "installed"])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_shaper(lab, made, direction, order):
    """A pod's limit holds in its direction, whatever the bypass does in the other."""
    limit = {f"{direction}Rate": 20_000_000, f"{direction}Burst": 200_000}
    name, address = made.add(*ORDERS[order], bandwidth=limit)
    # In the order "main" the agent has the pod before the shaper. The kernel tells of that before
    # the plugin ends, and the agent, which has one thread, answers nothing before it has acted.
    lab.ask("node1", op="status")
    client, remote = lab.netns("node2-pod1"), lab.address("node2-pod1")
    to_pod, from_pod = rate(client, name, address), rate(name, client, remote)
    slow, fast = (to_pod, from_pod) if direction == "ingress" else (from_pod, to_pod)
    assert 10 < slow < 22
    assert fast > 100


def test_shaper_between_pods_of_one_node(lab, made):
    """A limit holds against a neighbour on the same node too."""
    limit = {"ingressRate": 20_000_000, "ingressBurst": 200_000}
    name, address = made.add(*ORDERS["k3s"], bandwidth=limit)
    assert rate(lab.netns("node1-pod1"), name, address) < 22


def test_tuning(lab, made):
    """A MAC and a sysctl that tuning sets are the pod's, and the new MAC is the bypass's."""
    sysctl = {"net.ipv4.tcp_keepalive_time": "77"}
    tuning = {"type": "tuning", "mac": "02:00:00:00:00:77", "sysctl": sysctl}
    name, address = made.add("1.0.0", "bridge", tuning, "chained")
    said = namespaces.run(name, "sysctl", "-n", "net.ipv4.tcp_keepalive_time").stdout
    assert said == "77\n"
    with lab.verdicts("node1") as seen:
        exchange(lab.netns("node2-pod1"), name, address)
    assert seen["from_pod", "spoofed_mac"] == 0
    assert seen["from_nic", "decapsulated"] > 100


def test_firewall(lab, made):
    """The firewall plugin's rules for the pod are there, and its flows pass them and go on."""
    firewall = {"type": "firewall", "backend": "iptables"}
    name, address = made.add("1.0.0", "bridge", firewall, "chained")
    assert address in lab.exec("node1", "iptables", "-S", "CNI-FORWARD").stdout
    with lab.verdicts("node1") as seen:
        exchange(lab.netns("node2-pod1"), name, address)
    assert seen["from_nic", "decapsulated"] > 100


def test_spoof_check(lab, made):
    """A pod whose port the bridge plugin checks sends by the kernel path alone."""
    checked = {**made.named["bridge"], "macspoofchk": True}
    name, address = made.add("1.0.0", checked, "chained")
    with lab.verdicts("node1") as seen:
        exchange(lab.netns("node2-pod1"), name, address)
    assert seen["from_pod", "encapsulated"] == 0
    assert seen["from_pod", "judged"] > 0
