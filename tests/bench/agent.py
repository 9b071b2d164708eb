# SPDX-License-Identifier: Apache-2.0
"""`scripts/bench agent [--nodes 100,1000,5000,10000] [--json]`: how the agent scales.

For each size a node in a namespace of its own, a stand-in for the API server with node objects of
15 kB, and a real agent. Measured: the first sync (from the request for the list to the last entry)
in modes own and adopt, against `ip -batch` and `bridge -batch` of the same entries; from a change
of one node to its entry in the map, in both; a burst of 500 changes; CPU while every node's status
is written every five minutes; memory. Exit status 1 if a budget is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import leftovers
from apiserver import ApiServer, make_node

from vxlane.datapath.bpffs import remove_bpffs
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.lab import namespaces
from vxlane.lab.agents import program
from vxlane.show.node import call

SIZES = (100, 1000, 5000, 10000)
CHANGES = 200
BURST = 500
CALM_SECONDS = 2.0
"""Without a look; the timer of the rules asks for one every five."""
STEADY_SECONDS = 62.0
"""Two of the agent's full looks."""
HEARTBEAT_SECONDS = 300.0
"""How often a kubelet writes its node's status when nothing changes."""
PATIENCE = 180.0
OWN = "node-00001"
IP = "flannel.alpha.coreos.com/public-ip"
DATA = "flannel.alpha.coreos.com/backend-data"

SETUP = """
ip link add eth0 type veth peer name wire0
ip addr add 172.16.0.1/16 dev eth0; ip link set eth0 up; ip link set wire0 up
"""
DEVICE = """
ip link add flannel.1 type vxlan id 1 dev eth0 local 172.16.0.1 dstport 8472 nolearning
ip addr add 10.64.1.0/32 dev flannel.1; ip link set flannel.1 up
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one size showed; seconds, except where the name says otherwise."""

    nodes: int
    batch: float
    """ip -batch and bridge -batch of the same entries."""
    own_sync: float
    own_write: float
    """The part of it that the kernel's entries took."""
    adopt_sync: float
    change_p50_ms: float
    change_p99_ms: float
    adopt_change_p50_ms: float
    adopt_change_p99_ms: float
    """In mode adopt, where it comes from the API server and from the kernel."""
    burst: float
    """Until the last of 500 changes in about a second was in the map."""
    burst_looks: int
    steady_cpu_percent: float
    resident_mb: float

    def missed(self) -> list[str]:
        """The budgets that were missed, in sentences."""
        most_mb = 64 if self.nodes <= 1000 else 96
        budgets = [
            (self.adopt_sync <= 5 or self.nodes > 5000, "first sync in adopt takes over 5 s"),
            (self.own_write <= 1.5 * self.batch, "entries take over 1.5 times ip -batch"),
            (self.change_p99_ms <= 50 or self.nodes > 5000, "p99 of a change is over 50 ms"),
            (
                self.adopt_change_p99_ms <= 50 or self.nodes > 5000,
                "p99 of a change in adopt is over 50 ms",
            ),
            (self.steady_cpu_percent < 5 or self.nodes > 5000, "steady CPU is over 5 %"),
            (self.resident_mb <= most_mb, f"resident memory is over {most_mb} MB"),
        ]
        return [f"{self.nodes} nodes: {sentence}" for is_kept, sentence in budgets if not is_kept]


class World:
    """The node, its agent and the API server; this process is inside the namespace."""

    def __init__(self, state: Path, nodes: int) -> None:
        self.state = state
        self.numbers = range(1, nodes + 1)
        self.api = ApiServer(bookmark_every=60)
        self.api.put(make_node(1, size=15_000))
        self.api.up()
        self.agent: subprocess.Popen[bytes] | None = None
        (state / "kubeconfig").write_text(json.dumps(_kubeconfig(self.api.url)))
        backend = {"Network": "10.64.0.0/10", "Backend": {"Type": "vxlan"}}
        (state / "net-conf.json").write_text(json.dumps(backend))

    def fill(self) -> None:
        """Put all nodes into the cluster."""
        self.api.put(*(make_node(number, size=15_000) for number in self.numbers))
        self.api.forget()

    def start(self, mode: str) -> None:
        """Start an agent; returns when it runs, not when it is ready."""
        command = [program("vxlane"), "agent", "--mode", mode, "--node-name", OWN, "-v=1"]
        command += ["--kube-subnet-mgr", "--ip-masq", "--state-dir", str(self.state)]
        command += ["--kubeconfig-file", str(self.state / "kubeconfig")]
        command += ["--net-config-path", str(self.state / "net-conf.json")]
        command += ["--subnet-file", str(self.state / "subnet.env")]
        with (self.state / "log").open("wb") as log:
            self.agent = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        """End the agent."""
        if self.agent:
            self.agent.terminate()
            self.agent.wait()
            self.agent = None

    def log(self) -> str:
        """What the agent has said."""
        return (self.state / "log").read_text()

    def status(self) -> dict[str, object]:
        """What the agent says of itself."""
        status: dict[str, object] = call(self.state, {"op": "status"})["status"]
        return status

    def is_ready(self) -> bool:
        """Whether the agent is."""
        with contextlib.suppress(Exception):
            return bool(self.status()["ready"])
        return False

    def first_sync(self, mode: str) -> float:
        """Seconds from the first request for nodes to the last peer in the map."""
        self.api.requests.clear()
        self.start(mode)
        began = until(lambda: bool(self.api.requests))
        with Maps.open(pin_directory(self.state)) as maps:
            peers = len(self.numbers) - 1
            return until(lambda: self.address(maps, -1) and len(maps.peers()) == peers) - began

    def settle(self) -> None:
        """Wait for the calm after a first sync, whose own events have the agent look once more."""
        looks, since = self.status()["reconciles"], time.monotonic()
        while time.monotonic() - since < CALM_SECONDS:
            time.sleep(0.1)
            if self.status()["reconciles"] != looks:
                looks, since = self.status()["reconciles"], time.monotonic()

    def address(self, maps: Maps, index: int) -> IPv4Address | None:
        """What the map has for the node at `index` of the numbers."""
        peer = maps._match(_cidr(self.numbers[index]))
        return IPv4Address(bytes(peer.address)[12:]) if peer else None

    def change(self, index: int) -> IPv4Address:
        """Give a node another address; that address."""
        number = self.numbers[index]
        current = IPv4Address(self.api.nodes[f"node-{number:05}"]["metadata"]["annotations"][IP])
        other = IPv4Address(int(current) ^ 0x8000)
        self.api.put(make_node(number, size=15_000, public_ip=str(other)))
        return other

    def cpu_seconds(self) -> float:
        """What the agent and the tools that it ran have used of the CPU."""
        assert self.agent
        fields = Path(f"/proc/{self.agent.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """The agent's resident memory."""
        assert self.agent
        status = Path(f"/proc/{self.agent.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def measure(state: Path, nodes: int) -> Figures:
    """All figures of one size, in the network namespace of this process."""
    sh(SETUP)
    world = World(state, nodes)
    try:
        # Programs are compiled and pinned beforehand: their second is no matter of size.
        world.start("own")
        until(world.is_ready)
        world.stop()
        world.fill()
        own_sync = world.first_sync("own")
        own_write = write_seconds(world)
        world.settle()
        changes = [change_ms(world) for _ in range(CHANGES)]
        burst, looks = burst_seconds(world)
        cpu = steady_percent(world)
        resident = world.resident_mb()
        world.stop()
        sh("ip link del flannel.1", DEVICE)
        batch = batch_seconds(world)
        with Maps.open(pin_directory(state)) as maps:
            for cidr in maps.peers():
                maps.delete_peer(cidr)
        adopt_sync = world.first_sync("adopt")
        world.settle()
        adopt_changes = [change_ms(world, in_kernel=True) for _ in range(CHANGES)]
    finally:
        world.stop()
    changes.sort()
    adopt_changes.sort()
    return Figures(
        nodes=nodes,
        batch=batch,
        own_sync=own_sync,
        own_write=own_write,
        adopt_sync=adopt_sync,
        change_p50_ms=changes[len(changes) // 2],
        change_p99_ms=changes[len(changes) * 99 // 100 - 1],
        adopt_change_p50_ms=adopt_changes[len(changes) // 2],
        adopt_change_p99_ms=adopt_changes[len(changes) * 99 // 100 - 1],
        burst=burst,
        burst_looks=looks,
        steady_cpu_percent=cpu,
        resident_mb=resident,
    )


def write_seconds(world: World) -> float:
    """How long the kernel's entries took, as the agent logs it."""
    wrote = {
        int(n): float(t) for n, t in re.findall(r"(\d+) changes of entries in (\S+) s", world.log())
    }
    return wrote[3 * (len(world.numbers) - 1)]


def change_ms(world: World, *, in_kernel: bool = False) -> float:
    """From one node's change to its entry in the map, in a calm.

    `in_kernel`: the FDB entry changes too, as flanneld would have it.
    """
    time.sleep(random.uniform(0.15, 0.3))
    index = random.randrange(1, len(world.numbers))
    with Maps.open(pin_directory(world.state)) as maps:
        began = time.monotonic()
        expected = world.change(index)
        if in_kernel:
            mac = make_node(world.numbers[index])["metadata"]["annotations"][DATA]
            to = f"dev flannel.1 dst {expected} self permanent"
            sh(f"bridge fdb replace {json.loads(mac)['VtepMAC']} {to}")
        return (until(lambda: world.address(maps, index) == expected) - began) * 1000


def burst_seconds(world: World) -> tuple[float, int]:
    """500 changes in about a second: until the last is in the map, and how many looks it took."""
    before = world.status()["reconciles"]
    began = time.monotonic()
    wanted = {}
    for _ in range(BURST):
        index = random.randrange(1, len(world.numbers))
        wanted[index] = world.change(index)
        time.sleep(0.0015)
    with Maps.open(pin_directory(world.state)) as maps:
        ended = until(lambda: all(world.address(maps, i) == a for i, a in wanted.items()))
    return ended - began, int(str(world.status()["reconciles"])) - int(str(before))


def steady_percent(world: World) -> float:
    """Of one CPU, while nothing changes but the status that every kubelet writes."""
    every = HEARTBEAT_SECONDS / len(world.numbers)
    began, before = time.monotonic(), world.cpu_seconds()
    while time.monotonic() - began < STEADY_SECONDS:
        name = f"node-{random.choice(world.numbers):05}"
        world.api.put(world.api.nodes[name])
        time.sleep(every)
    return (world.cpu_seconds() - before) / (time.monotonic() - began) * 100


def batch_seconds(world: World) -> float:
    """The same entries by iproute2's own batches."""
    by_ip, by_bridge = [], []
    for number in world.numbers[1:]:
        annotations = world.api.nodes[f"node-{number:05}"]["metadata"]["annotations"]
        mac, cidr = json.loads(annotations[DATA])["VtepMAC"], _cidr(number)
        gateway = cidr.network_address
        by_ip.append(f"neigh replace {gateway} lladdr {mac} dev flannel.1 nud permanent")
        by_ip.append(f"route replace {cidr} via {gateway} dev flannel.1 onlink")
        fdb = f"fdb replace {mac} dev flannel.1 dst {annotations[IP]} self permanent"
        by_bridge.append(fdb)
    (world.state / "ip").write_text("\n".join(by_ip) + "\n")
    (world.state / "bridge").write_text("\n".join(by_bridge) + "\n")
    began = time.monotonic()
    sh(f"ip -batch {world.state}/ip; bridge -batch {world.state}/bridge")
    return time.monotonic() - began


def until(condition: Callable[[], object]) -> float:
    """The time (CLOCK_MONOTONIC) at which `condition` came true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE:g} s")
        time.sleep(0.0005)
    return time.monotonic()


def sh(*scripts: str) -> None:
    """Run shell lines."""
    subprocess.run(["sh", "-ec", "\n".join(scripts)], check=True)


def _cidr(number: int) -> IPv4Network:
    return IPv4Network(make_node(number)["spec"]["podCIDR"])


def _kubeconfig(url: str) -> dict[str, object]:
    return {
        "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench"}}],
        "clusters": [{"name": "bench", "cluster": {"server": url}}],
    }


def in_namespace(nodes: int) -> Figures:
    """Measure one size in a namespace made for it, by a process of its own."""
    name = f"vxbench-{os.getpid()}"
    state = Path("/run/vxlane-lab") / name
    state.mkdir(parents=True)
    namespaces.create(name)
    try:
        command = [sys.executable, __file__, "--inside", str(state), "--nodes", str(nodes)]
        done = subprocess.run(
            namespaces.inside(name, command), stdout=subprocess.PIPE, check=True, text=True
        )
        return Figures(**json.loads(done.stdout))
    finally:
        namespaces.remove([name])
        remove_bpffs(state / "bpf")
        shutil.rmtree(state)


def table(all_figures: list[Figures]) -> str:
    """One column for each size."""
    names = list(asdict(all_figures[0]))
    lines = []
    for name in names:
        cells = [f"{getattr(figures, name):>10.4g}" for figures in all_figures]
        lines.append(f"{name.replace('_', ' '):<20}" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default=",".join(map(str, SIZES)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [int(size) for size in options.nodes.split(",")]
    if options.inside:
        print(json.dumps(asdict(measure(options.inside, sizes[0]))))
        return
    leftovers.remove("vxbench")
    all_figures = [in_namespace(size) for size in sizes]
    missed = [sentence for figures in all_figures for sentence in figures.missed()]
    if options.json:
        print(json.dumps({"sizes": [asdict(f) for f in all_figures], "missed": missed}, indent=2))
    else:
        print(table(all_figures))
        print("\n".join(missed))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
