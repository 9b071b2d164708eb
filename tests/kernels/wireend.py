# SPDX-License-Identifier: Apache-2.0
"""One end of the wire: `wireend.py 1` is a node with vxlane, `wireend.py 2` one without.

Runs in a virtual machine, whose own network is the node: its root namespace gets the name by which
the lab's rooms know a node. Each node has one pod. The first one measures, and writes lines that
begin with @@.
"""

from __future__ import annotations

import json
import sys
import time

from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.errors import LabError
from vxlane.lab import agents, kernel_node, namespaces, pods
from vxlane.lab.plan import UNDERLAY, LabNode, plan_nodes
from vxlane.lab.underlay import NIC, ip
from vxlane.show import documents
from vxlane.show.node import call

NODES = plan_nodes("wire", 2, kernel_only=1)
SECONDS = "5"


def main() -> None:
    """Become the node, make its pod, and measure or serve."""
    node = NODES[int(sys.argv[1]) - 1]
    node.directory.mkdir(parents=True)
    namespaces.run(None, "ip", "netns", "attach", node.name, "1")
    ip(node.name, f"address add {node.address}/{UNDERLAY.prefixlen} dev {NIC}")
    ip(node.name, f"link set {NIC} up")
    if node.kernel_only:
        kernel_node.make_overlay(node, [peer for peer in NODES if peer != node])
    else:
        nodes = node.directory / "nodes.json"
        agents.write_nodes(nodes, NODES)
        agents.start(node, nodes)
        agents.await_ready(node)
    pods.write_cni_files(node)
    pod = pods.add_pod(node, f"{node.name}-pod1")
    if node.kernel_only:
        namespaces.run(pod.name, "iperf3", "-s", timeout=3600)
    else:
        measure(node, pod.name, str(NODES[1].pod_cidr[2]))


def measure(node: LabNode, pod: str, address: str) -> None:
    """Ping, then TCP both ways by the bypass and by the kernel path."""
    for _ in range(300):
        if not namespaces.run(pod, "ping", "-c1", "-W1", address, check=False).returncode:
            break
        time.sleep(1)
    else:
        raise LabError(f"{address} does not answer")
    said = namespaces.run(pod, "ping", "-c", "10", "-i", "0.2", "-s", "1300", address).stdout
    print(f"@@ ping {' '.join(said.splitlines()[-2].split(',')[:2])}", flush=True)
    for name, *way in (("outward",), ("inward", "-R")):
        fast, share = transfer(node, pod, address, *way)
        call(node.directory, {"op": "bypass", "enabled": False})
        slow, _ = transfer(node, pod, address, *way)
        call(node.directory, {"op": "bypass", "enabled": True})
        print(f"@@ {name} {fast / slow:.2f}x TCP, {share:.1%} of it bypassed", flush=True)


def transfer(node: LabNode, pod: str, address: str, *way: str) -> tuple[float, float]:
    """Received bit/s of one flow, and the share of packets that were bypassed."""
    before = counters(node)
    client = ["iperf3", "-J", "-t", SECONDS, "-c", address, *way]
    said = json.loads(namespaces.run(pod, *client, timeout=600).stdout)
    moved = documents.subtract(counters(node), before)
    packets = [
        (verdict.kind.name, count.packets)
        for program in documents.ENTRANCES
        for verdict, count in moved.get(program, {}).items()
    ]
    bypassed = sum(count for kind, count in packets if kind == "BYPASSED")
    return said["end"]["sum_received"]["bits_per_second"], bypassed / sum(n for _, n in packets)


def counters(node: LabNode) -> documents.Counters:
    """The node's, as they stand."""
    with Maps.open(pin_directory(node.directory)) as maps:
        return maps.counters()


if __name__ == "__main__":
    main()
