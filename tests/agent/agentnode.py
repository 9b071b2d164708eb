# SPDX-License-Identifier: Apache-2.0
"""AgentNode: a namespace with an eth0, a file of nodes, a state directory, and an agent."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import standing

from vxlane.datapath.abi import Program
from vxlane.datapath.bpffs import remove_bpffs
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.errors import VxlaneError
from vxlane.lab import namespaces
from vxlane.lab.agents import program
from vxlane.lab.plan import LABS
from vxlane.lab.waiting import wait_for
from vxlane.show.node import call
from vxlane.sources.model import derived_mac

POD_MAC = "02:00:00:00:01:02"
RUN = f"vxtest-{os.getpid()}"
SOON = 5.0
"""Seconds; what follows an event takes milliseconds, the rest is a busy machine's."""
BY_EVENTS = "--iptables-resync=600"
"""An agent that compares rules for an event or not at all: its usual timer is as long as SOON."""


class AgentNode:
    """Node `node1`, 192.168.77.1, pods 10.42.1.0/24, on a wire to nobody."""

    def __init__(self, word: str) -> None:
        self.netns = f"{RUN}-node-{word}"
        self.state = LABS / f"{RUN}-{word}"
        self.nodes_file = self.state / "nodes.yaml"
        self.log_file = self.state / "log"
        self.subnet_file = self.state / "subnet.env"
        self.process: subprocess.Popen[bytes] | None = None
        namespaces.create(self.netns)
        self.sh(
            "ip link add eth0 type veth peer name wire0",
            "ip addr add 192.168.77.1/24 dev eth0",
            "ip link set eth0 up; ip link set wire0 up",
        )
        self.state.mkdir(parents=True)
        self.write_nodes(2, 3)

    def sh(self, *lines: str, check: bool = True) -> str:
        """Run shell lines in the node; their output."""
        script = "\n".join(lines)
        return namespaces.run(self.netns, "sh", "-ec", script, check=check).stdout

    def write_nodes(self, *peers: int, extra: str = "") -> None:
        """Write the file for node1 and these peers; `extra` lines are added as they are."""
        lines = [
            f"  - {{name: node{n}, address: 192.168.77.{n}, podCIDR: 10.42.{n}.0/24}}"
            for n in (1, *peers)
        ]
        text = "\n".join(["network: 10.42.0.0/16", "nodes:", *lines, extra, ""])
        fresh = self.nodes_file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.nodes_file)

    def command(self, *prefix: str) -> list[str]:
        """The start of an agent's command line."""
        return namespaces.inside(self.netns, [*prefix, program("vxlane"), "agent"])

    def start(
        self,
        *options: str,
        mode: str = "own",
        nodes: bool = True,
        node_name: str = "node1",
        wait: bool = True,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start the agent, `prefix` before its command, and by default wait until it is ready."""
        command = [*self.command(*prefix), "--mode", mode]
        command += ["--node-name", node_name] if node_name else []
        command += ["--state-dir", str(self.state), "--subnet-file", str(self.subnet_file)]
        command += ["--nodes-file", str(self.nodes_file)] if nodes else []
        command += ["--ip-masq", *options]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )
        if wait:
            wait_for(self.is_ready, f"agent, see {self.log_file}", seconds=30)

    def is_ready(self) -> bool:
        """Whether the agent says that it is."""
        assert self.process
        assert self.process.poll() is None, self.log()
        try:
            return bool(self.status()["ready"])
        except VxlaneError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> float:
        """End the agent with a signal; the seconds it took."""
        assert self.process
        self.process.send_signal(number)
        began = time.monotonic()
        self.process.wait(timeout=10)
        self.process = None
        return time.monotonic() - began

    def stop_if_running(self) -> None:
        """End the agent, if there is one."""
        if self.process:
            self.stop()

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """Hold the agent still, so that it meets what is done in the block as a whole."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def detach(self, *options: str, check: bool = True) -> str:
        """Run `vxlane detach`; what it said."""
        command = [program("vxlane"), "detach", "--state-dir", str(self.state), *options]
        return namespaces.run(self.netns, *command, check=check).stderr

    def ask(self, **request: Any) -> dict[str, Any]:
        """Put a request to the agent."""
        return call(self.state, request)

    def status(self) -> dict[str, Any]:
        """What the agent says of itself."""
        status: dict[str, Any] = self.ask(op="status")["status"]
        return status

    def maps(self) -> Maps:
        """The pinned maps, to be closed by the caller."""
        return Maps.open(pin_directory(self.state))

    def peers(self) -> set[str]:
        """Pod CIDRs that the programs know."""
        with self.maps() as maps:
            return {str(cidr) for cidr in maps.peers()}

    def log(self) -> str:
        """All that the agents of this node have said."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def kernel_path(self) -> dict[str, Any]:
        """All that an overlay is made of, as iproute2 and iptables show it."""
        link = self.link("flannel.1")
        return {
            "link": {key: link[key] for key in ("mtu", "address", "operstate", "linkinfo")},
            "addresses": self.sh("ip -br -4 addr show flannel.1").split(),
            "routes": self.sh("ip route").splitlines(),
            "neighbours": sorted(self.sh("ip neigh show dev flannel.1").splitlines()),
            "fdb": sorted(self.sh("bridge fdb show dev flannel.1").splitlines()),
            "rules": [
                line
                for line in self.sh("iptables-save").splitlines()
                if line.startswith(("-A", "*"))
            ],
        }

    def link(self, name: str) -> dict[str, Any]:
        """A device as `ip -j` shows it."""
        shown: dict[str, Any] = json.loads(self.sh(f"ip -d -j link show {name}"))[0]
        return shown

    def everything(self) -> dict[str, Any]:
        """Whatever an agent could change on the node."""
        names = "net.ipv4.ip_forward net.netfilter.nf_conntrack_tcp_be_liberal"
        more = "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst"
        return {
            "links": [link["ifname"] for link in json.loads(self.sh("ip -j link"))],
            "routes": self.sh("ip route"),
            "rules": [
                line for line in self.sh("iptables-save").splitlines() if line.startswith("-A")
            ],
            "chains": "FLANNEL" in self.sh("iptables-save"),
            "sysctls": self.sh(f"sysctl {names} {more}"),
            "qdiscs": self.sh("tc qdisc"),
            "attached": self.attached(),
            "subnet_file": self.subnet_file.exists(),
        }

    def attached(self) -> set[tuple[Program, str]]:
        """Which program stands on which device, as the kernel has it."""
        return standing.programs(self.netns)

    @contextlib.contextmanager
    def watch(self, *objects: str) -> Iterator[list[str]]:
        """What `ip monitor` tells of links and `objects` in the block; complete after it."""
        command = namespaces.inside(self.netns, ["ip", "monitor", "link", *objects])
        seen: list[str] = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
            assert monitor.stdout
            # It does not say when it listens: a change of ours must be among what it tells.
            size = 1400
            while not select.select([monitor.stdout], [], [], 0.05)[0]:
                size += 1
                self.sh(f"ip link set wire0 mtu {size}")
            try:
                yield seen
                self.sh("ip link set wire0 mtu 1400")
                for line in monitor.stdout:
                    if "wire0" in line and "mtu 1400 " in line:
                        break
                    seen.append(line)
                else:
                    raise AssertionError(f"ip monitor ended, status {monitor.wait()}")
            finally:
                monitor.terminate()

    def remove(self) -> None:
        """Take everything away."""
        if self.process:
            self.process.kill()
            self.process.wait()
        namespaces.remove([self.netns])
        remove_bpffs(self.state / "bpf")
        shutil.rmtree(self.state)


def make_pod(node: AgentNode, number: int) -> dict[str, Any]:
    """A veth on the bridge, and the request that the CNI plugin makes for it."""
    node.sh(
        "ip link show cni0 || ip link add cni0 type bridge",
        "ip link set cni0 up",
        f"ip link add veth{number} type veth peer name pod{number}",
        f"ip link set veth{number} master cni0 up; ip link set pod{number} up",
    )
    return attachment(number)


def attachment(number: int) -> dict[str, Any]:
    """The request that the CNI plugin makes for the pod behind `veth<number>`."""
    return {
        "op": "add",
        "container_id": f"c{number}",
        "ifname": "eth0",
        "netns": f"/run/netns/pod{number}",
        "host_ifname": f"veth{number}",
        "mac": POD_MAC,
        "addresses": [f"10.42.1.{number}", "fd00::1"],
        "name": f"default/pod{number}",
    }


def mac(number: int) -> str:
    """The VTEP MAC of node `number`."""
    return derived_mac(f"node{number}")


def eventually(condition: Callable[[], bool], what: str, *, seconds: float = SOON) -> None:
    """Wait until `condition` holds."""
    wait_for(condition, what, seconds=seconds)
