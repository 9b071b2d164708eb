# SPDX-License-Identifier: Apache-2.0
"""`scripts/bench looking [--rounds 15] [--pods 250] [--json]`: what it costs to look at a node.

Capture: datagrams of 64 bytes from a pod to one of another node, as many as can be, and a hundredth
as many to another port. In turns with nobody looking, `vxlane capture` of that port on both nodes
writes the hundredth into files. A ratio is that of two rounds of a second, one after the other.

Top: 250 pods on a node, some of which talk. `vxlane top` draws on a terminal of 80x24 for 30 s, and
the kernel tells how much CPU time it and the agent used.

Exit status 1: the traffic is below 95 % of that which nobody looks at, or top and agent together
take more than 3 % of a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import leftovers
import verdict

from vxlane.bench import talk
from vxlane.lab import agents, namespaces, traffic
from vxlane.lab import lab as labs
from vxlane.lab.lab import Lab
from vxlane.lab.plan import LabNode
from vxlane.lab.traffic import Ends
from vxlane.util.places import STATE_VARIABLE

PORT, RARE_PORT = 7001, 7002
ROUND_SECONDS, TOP_SECONDS = 1.0, 30.0
TALKING, EACH = 10, 20
"""Pods that talk while top is looked at, and datagrams a second of each."""
SETTLE_SECONDS = 60.0
"""Hundreds of new pods keep an agent busy, once, which is no cost of a look at them."""
LEAST_SHARE, MOST_PERCENT = 0.95, 3.0


class Pouring:
    """The traffic of the captures: the client on one CPU, the server on another."""

    def __init__(self, ends: Ends, program: Path) -> None:
        self._ends, self._talk = ends, str(program)
        self.rare = 0
        """Datagrams a second to the other port."""

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """A server of both ports meanwhile."""
        argv = ("taskset", "-c", "1", self._talk, "serve", str(PORT), "2")
        with traffic.serving(self._ends.target, PORT, *argv) as self._server:
            yield

    def rate(self) -> float:
        """Datagrams that arrive in a second."""
        rare = self._pour(RARE_PORT, self.rare, cpu=1) if self.rare else None
        before = traffic.arrived(self._server)
        with self._pour(PORT, 0, cpu=0) as main:
            main.wait()
        arrived = traffic.arrived(self._server) - before
        if rare:
            rare.wait()
        return arrived / ROUND_SECONDS

    def _pour(self, port: int, rate: int, *, cpu: int) -> subprocess.Popen[bytes]:
        words = ["taskset", "-c", str(cpu), self._talk, "pour", self._ends.address, str(port)]
        words += [str(ROUND_SECONDS), "64", str(rate)]
        command = namespaces.inside(self._ends.source, words)
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def captured(nodes: Sequence[LabNode], directory: Path, taken: list[int]) -> Iterator[None]:
    """`vxlane capture` of the rare port on each node meanwhile; `taken` gets each count."""
    with contextlib.ExitStack() as stack:
        running = []
        for node in nodes:
            words = ["capture", "-w", str(directory / node.name), "--port", str(RARE_PORT)]
            running.append(stack.enter_context(vxlane(node, *words, stderr=subprocess.PIPE)))
        for process in running:
            assert process.stderr
            assert b"listening" in process.stderr.readline()
        yield
        for process in running:
            process.terminate()
            said = process.communicate()[1].decode().split()
            assert said[1:3] == ["packets,", "0"], said
            taken.append(int(said[0].replace(",", "")))


@contextlib.contextmanager
def vxlane(node: LabNode, *words: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A command of vxlane on a node of the lab."""
    command = namespaces.inside(node.name, [agents.program("vxlane"), *words])
    env = {**os.environ, STATE_VARIABLE: str(node.directory)}
    with subprocess.Popen(command, env=env, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def capture_figures(lab: Lab, rounds: int, directory: Path) -> dict[str, Any]:
    """The rounds: in every other pair the captured one comes first."""
    source, target = lab.pods[:2]
    pouring = Pouring(Ends(source.name, target.name, str(target.address)), talk.build(directory))
    alone, ratios, taken = [], [], list[int]()
    with pouring.served():
        pouring.rate()
        pouring.rare = round(pouring.rate() / 99)
        for number in range(rounds):
            rates = {}
            for is_captured in (number % 2 == 0, number % 2 == 1):
                looking = captured(lab.nodes, directory, taken)
                with looking if is_captured else contextlib.nullcontext():
                    rates[is_captured] = pouring.rate()
            alone.append(rates[False])
            ratios.append(rates[True] / rates[False])
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "datagrams_per_second": round(statistics.median(alone)),
        "captured_share": round(statistics.median(taken) / statistics.median(alone), 4),
        "captured_of_alone": round(statistics.median(ratios), 3),
        "captured_of_alone_quartiles": [round(low, 3), round(high, 3)],
    }


def top_figures(lab: Lab, pods: int, directory: Path) -> dict[str, Any]:
    """What top and the agent use of the CPU, beside a terminal that is read at once."""
    node, server = lab.nodes[0], lab.pods[1]
    while sum(pod.node == node.name for pod in lab.pods) < pods:
        lab.add_pod(node)
    time.sleep(SETTLE_SECONDS)
    clients = [pod.name for pod in lab.pods if pod.node == node.name][:TALKING]
    program = str(talk.build(directory))
    agent = agents.pid(node)
    assert agent
    with contextlib.ExitStack() as stack:
        stack.enter_context(traffic.serving(server.name, PORT, program, "serve", str(PORT)))
        for client in clients:
            words = [program, "pour", str(server.address), str(PORT), str(TOP_SECONDS + 30), "64"]
            command = namespaces.inside(client, [*words, str(EACH)])
            child = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            stack.callback(child.kill)
        screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        top = stack.enter_context(vxlane(node, "top", stdin=terminal, stdout=terminal))
        drawn = draw(screen, 5.0)
        before = {pid: cpu_seconds(pid) for pid in (top.pid, agent)}
        drawn += draw(screen, TOP_SECONDS)
        used = {pid: cpu_seconds(pid) - before[pid] for pid in before}
    assert b"bypassed" in drawn
    percent = {pid: 100 * seconds / TOP_SECONDS for pid, seconds in used.items()}
    return {
        "pods": pods,
        "top_percent": round(percent[top.pid], 2),
        "agent_percent": round(percent[agent], 2),
        "together_percent": round(sum(percent.values()), 2),
    }


def draw(screen: int, seconds: float) -> bytes:
    """What comes to the screen in that time."""
    deadline, drawn = time.monotonic() + seconds, b""
    while (left := deadline - time.monotonic()) > 0:
        if select.select([screen], [], [], left)[0]:
            drawn += os.read(screen, 1 << 16)
    return drawn


def cpu_seconds(pid: int) -> float:
    """What a process, and the tools that it ran, have used: utime, stime, cutime, cstime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def misses(figures: dict[str, Any]) -> list[str]:
    """The budgets that were missed, a sentence each."""
    missed = []
    if figures.get("captured_of_alone", 1.0) < LEAST_SHARE:
        missed.append(f"with a capture less than {LEAST_SHARE:.0%} of the datagrams arrive")
    if figures.get("together_percent", 0.0) > MOST_PERCENT:
        missed.append(f"top and the agent take more than {MOST_PERCENT:g} % of a CPU")
    return missed


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="scripts/bench looking")
    parser.add_argument("--rounds", type=int, default=15, help="of capture, 2 or more; 0: none")
    parser.add_argument("--pods", type=int, default=250, help="of top; 0: leave it out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    leftovers.remove("vxbench")
    name, figures = f"vxbench-{os.getpid()}", dict[str, Any]()
    try:
        lab = labs.up(name, nodes=2, pods_per_node=1, kernel_only=0)
        with tempfile.TemporaryDirectory() as directory:
            if arguments.rounds:
                figures |= capture_figures(lab, arguments.rounds, Path(directory))
            if arguments.pods:
                figures |= top_figures(lab, arguments.pods, Path(directory))
    finally:
        labs.down(name)
    verdict.end(figures, misses(figures), as_json=arguments.json)


if __name__ == "__main__":
    main()
