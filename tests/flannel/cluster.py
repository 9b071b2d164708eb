# SPDX-License-Identifier: Apache-2.0
"""Nodes whose network flanneld's stand-in makes, or an agent; a real etcd between them, or the
stand-in for Kubernetes' API.

The server listens on the switch of the lab, 192.168.77.1, where every node reaches it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from apiserver import ApiServer
from etcdserver import EtcdServer
from labundertest import LabUnderTest
from taps import inside

from vxlane.errors import VxlaneError
from vxlane.lab import namespaces, underlay
from vxlane.lab.agents import program
from vxlane.lab.lab import Lab
from vxlane.lab.plan import POD_NETWORK, plan_nodes, switch_name
from vxlane.lab.waiting import wait_for
from vxlane.show.node import call

SERVER = "192.168.77.1"
PREFIX = "/coreos.com/network"
SOON = 10.0


@dataclass
class Daemon:
    """A flanneld or an agent of a node, and where it logs."""

    process: subprocess.Popen[bytes]
    log: Path
    begin: int = field(default=0)
    """Bytes of the log that are of earlier ones."""

    def said(self) -> str:
        """What it has logged."""
        return self.log.read_bytes()[self.begin :].decode()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, and return when it is gone."""
        self.process.send_signal(number)
        self.process.wait(timeout=SOON)


class Cluster(LabUnderTest):
    """`count` nodes, bare; node N had the subnet 10.42.N.0/24 before and gets it again.

    A `fresh` node, by its short name, was never here: the subnet is reserved for it in etcd.
    """

    def __init__(
        self, name: str, count: int, *, config: dict[str, Any] | None = None, fresh: str = ""
    ) -> None:
        # Kernel-only: pods are made by the distribution's plugins, and nobody tells the agent.
        super().__init__(Lab(name, plan_nodes(name, count, kernel_only=count)))
        self.flannelds: dict[str, Daemon] = {}
        self.agents: dict[str, Daemon] = {}
        for node in self.lab.nodes:
            node.directory.mkdir(parents=True)
            (node.directory / "subnet.env").write_text(
                f"FLANNEL_NETWORK={POD_NETWORK}\nFLANNEL_SUBNET={node.pod_cidr[1]}/24\n"
            )
        self.lab.save()
        underlay.make_switch(name)
        underlay.ip(switch_name(name), f"address add {SERVER}/24 dev br0")
        for node in self.lab.nodes:
            underlay.make_node(name, node)
        self._serve()
        self.configure(**(config or {"Type": "vxlan"}))
        if fresh:
            (self.node(fresh).directory / "subnet.env").unlink()
            value = {"PublicIP": str(self.node(fresh).address), "BackendType": "none"}
            self.etcd.ctl("put", self.key(fresh), json.dumps(value))

    def _serve(self) -> None:
        directory = self.lab.nodes[0].directory.parent / "etcd"
        directory.mkdir()
        self.etcd = EtcdServer(directory, netns=switch_name(self.lab.name), host=SERVER).up()

    @property
    def names(self) -> list[str]:
        """Short names of all nodes."""
        return [node.name.removeprefix(f"{self.lab.name}-") for node in self.lab.nodes]

    def configure(self, **backend: Any) -> None:
        """Put the network's configuration into etcd."""
        text = json.dumps({"Network": str(POD_NETWORK), "Backend": backend})
        self.etcd.ctl("put", f"{PREFIX}/config", text)

    def source_options(self) -> list[str]:
        """Where flanneld and agents find the nodes; both know these options."""
        return ["--etcd-endpoints", self.etcd.url, "--etcd-prefix", PREFIX]

    def published_macs(self) -> dict[IPv4Network, str]:
        """Pod CIDR -> the VTEP MAC that its node published."""
        found = {}
        for name in self.names:
            value = self.etcd.ctl("get", "--print-value-only", self.key(name))
            if value:
                found[self.node(name).pod_cidr] = json.loads(value)["BackendData"]["VtepMAC"]
        return found

    def key(self, name: str) -> str:
        """The key of a node's subnet in etcd."""
        return f"{PREFIX}/subnets/{str(self.node(name).pod_cidr).replace('/', '-')}"

    def start_flanneld(self, *names: str, options: Iterable[str] = (), wait: bool = True) -> None:
        """Start the stand-in on nodes; wait until it has told the node's pods to come."""
        command = [sys.executable, str(Path(__file__).with_name("flanneld.py")), "--ip-masq"]
        command += [*self.source_options(), "--iface", "eth0"]
        for name in names:
            daemon = self._start(name, [*command, *options], "flanneld.log")
            self.flannelds[name] = daemon
        for name in names if wait else ():
            daemon = self.flannelds[name]
            wait_for(lambda d=daemon: "Running backend" in d.said(), daemon.log, seconds=30)

    def start_agent(
        self, name: str, *options: str, mode: str = "own", source: bool = True, wait: bool = True
    ) -> None:
        """Start an agent on a node, which finds the pods that are there; wait until it serves."""
        node = self.node(name)
        command = [program("vxlane"), "agent", "--mode", mode, "--ip-masq", "--iface", "eth0"]
        command += ["--state-dir", str(node.directory), "--cni-cache-dir"]
        command += [str(node.directory / "cni"), "--node-name", name]
        command += self.source_options() if source else []
        self.agents[name] = self._start(name, [*command, *options], "agent.log")
        if wait:
            log = self.agents[name].log
            wait_for(lambda: self.is_ready(name), f"agent of {name}, see {log}", seconds=30)

    def end_flanneld(self, *names: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End the stand-in of nodes; all that it made stays."""
        for name in names:
            self.flannelds.pop(name).end(number)

    def end_agent(self, *names: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End the agent of nodes; all that it made stays."""
        for name in names:
            self.agents.pop(name).end(number)

    def detach(self, name: str, *options: str) -> str:
        """Run `vxlane detach` on a node, which ends its agent too; what it said."""
        directory = str(self.node(name).directory)
        done = self.exec(name, program("vxlane"), "detach", "--state-dir", directory, *options)
        if daemon := self.agents.pop(name, None):
            daemon.process.wait(timeout=SOON)
        return done.stdout + done.stderr

    def status(self, name: str) -> dict[str, Any]:
        """What a node's agent says of itself."""
        document: dict[str, Any] = call(self.node(name).directory, {"op": "status"})["status"]
        return document

    def is_ready(self, name: str) -> bool:
        """Whether a node's agent says that it serves."""
        daemon = self.agents[name]
        assert daemon.process.poll() is None, daemon.said()
        try:
            return bool(self.status(name)["ready"])
        except VxlaneError:
            return False

    def sh(self, name: str, *lines: str, check: bool = True) -> str:
        """Run shell lines on a node; their output."""
        return self.exec(name, "sh", "-ec", "\n".join(lines), check=check).stdout

    def await_routes(self, *names: str) -> None:
        """Wait until nodes have a route to each other node."""
        for name in names:
            others = [node for node in self.lab.nodes if node.name != self.netns(name)]

            def has_all(name: str = name, others=others) -> bool:
                routes = self.sh(name, "ip route")
                return all(str(node.pod_cidr) in routes for node in others)

            wait_for(has_all, f"routes of {name}", seconds=SOON)

    def add_pods(self, *names: str) -> None:
        """One more pod on each node."""
        for name in names:
            self.lab.add_pod(self.node(name))

    def close(self) -> None:
        """End the server and all daemons; the rest goes with the lab."""
        for daemon in [*self.flannelds.values(), *self.agents.values()]:
            daemon.end(signal.SIGKILL)
        self._stop_serving()

    def _stop_serving(self) -> None:
        self.etcd.close()

    def _start(self, name: str, command: list[str], log: str) -> Daemon:
        node = self.node(name)
        path = node.directory / log
        command = [*command, "--subnet-file", str(node.directory / "subnet.env")]
        with path.open("ab") as output:
            begin = output.tell()
            inside = namespaces.inside(node.name, command)
            env = {**os.environ, "NODE_NAME": name}
            process = subprocess.Popen(inside, stdout=output, stderr=output, env=env)
        return Daemon(process, path, begin)


class KubeCluster(Cluster):
    """The same with Kubernetes' API instead of etcd; nodes go by their short names there."""

    def _serve(self) -> None:
        self.api = ApiServer(host=SERVER)
        for node, name in zip(self.lab.nodes, self.names, strict=True):
            self.api.put(
                {
                    "metadata": {"name": name},
                    "spec": {"podCIDR": str(node.pod_cidr), "podCIDRs": [str(node.pod_cidr)]},
                    "status": {"conditions": []},
                }
            )
        inside(switch_name(self.lab.name), self.api.up)
        cluster = {"name": "lab", "cluster": {"server": self.api.url}}
        context = {"name": "lab", "context": {"cluster": "lab"}}
        document = {"current-context": "lab", "contexts": [context], "clusters": [cluster]}
        self._file("kubeconfig").write_text(json.dumps(document))

    def configure(self, **backend: Any) -> None:
        """Write the net-conf.json of all nodes."""
        text = json.dumps({"Network": str(POD_NETWORK), "Backend": backend})
        self._file("net-conf.json").write_text(text)

    def source_options(self) -> list[str]:
        """See `Cluster`."""
        options = ["--kube-subnet-mgr", "--kube-api-url", self.api.url]
        options += ["--kubeconfig-file", str(self._file("kubeconfig"))]
        return [*options, "--net-config-path", str(self._file("net-conf.json"))]

    def published_macs(self) -> dict[IPv4Network, str]:
        """See `Cluster`."""
        found = {}
        for node in self.api.nodes.values():
            said = node["metadata"].get("annotations", {})
            if data := said.get("flannel.alpha.coreos.com/backend-data"):
                found[IPv4Network(node["spec"]["podCIDR"])] = json.loads(data)["VtepMAC"]
        return found

    def _file(self, name: str) -> Path:
        return self.lab.nodes[0].directory.parent / name

    def _stop_serving(self) -> None:
        self.api.down()
