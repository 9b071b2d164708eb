# SPDX-License-Identifier: Apache-2.0
"""What the plugin's tests share: its executable, an agent's stand-in, and a way to call it.

The stand-in speaks the agent's protocol over a real socket and writes down what it hears. What
the plugin does with a real agent is for the tests of labs.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vxlane.install import executable
from vxlane.lab import namespaces
from vxlane.lab.pods import PLUGINS
from vxlane.runtime.chain import Chain, ContainerInterface

DELEGATE_PLUGIN = """\
#!/bin/sh
# A delegate of version 1.1.0: writes its calls down, fails where FAIL-<command> says how.
cd "$(dirname "$0")"
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS" >>calls
cat >"stdin-$CNI_COMMAND"
[ "$CNI_COMMAND" != ADD ] || cp -r ../flannel noted-before
[ ! -e "FAIL-$CNI_COMMAND" ] || { cat "FAIL-$CNI_COMMAND"; exit 1; }
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.42.66.2/24"}]}'
"""

SUBNET_ENV = """\
FLANNEL_NETWORK=10.42.0.0/16
FLANNEL_SUBNET=10.42.66.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""


@dataclass
class Answer:
    """What a call of the plugin came to."""

    status: int
    document: Any
    """What stdout held, None when it was empty."""
    stderr: str


@dataclass
class Agent:
    """Stands in for the agent: answers every question, remembers them all."""

    state_dir: Path
    answer: dict[str, Any] = field(default_factory=lambda: {"ok": True, "accelerated": True})
    heard: list[dict[str, Any]] = field(default_factory=list)

    def serve(self, listener: socket.socket) -> None:
        """Answer until the listener is closed."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as lines:
                self.heard.append(json.loads(lines.readline()))
                with contextlib.suppress(BrokenPipeError):
                    lines.write(json.dumps(self.answer).encode() + b"\n")
                    lines.flush()


@pytest.fixture(scope="session")
def binaries(tmp_path_factory):
    """A directory with the plugin as `vxlane install` builds it, under both of its names."""
    directory = tmp_path_factory.mktemp("bin")
    content = executable.build(executable.default_interpreter())
    for name in ("vxlane", "flannel"):
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture(params=["0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def version(request):
    """Each that the distribution's bridge plugin speaks, too."""
    return request.param


@pytest.fixture
def agent(tmp_path):
    """An agent that accelerates every pod."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen(1)
        standing_in = Agent(tmp_path)
        threading.Thread(target=standing_in.serve, args=[listener], daemon=True).start()
        yield standing_in
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def call(binaries):
    """Call the plugin as a runtime does.

        answer = call("ADD", conf, CNI_NETNS="/run/netns/pod")

    `conf` is an object or bytes; `namespace` is where the plugin runs, `wrap` what starts it.
    """

    def run(command, conf, *, plugin="vxlane", namespace=None, wrap=(), **environ):
        environ = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": "/run/netns/none",
            "CNI_PATH": f"{binaries}:{PLUGINS}",
            **environ,
        }
        done = subprocess.run(
            namespaces.inside(namespace, [*wrap, str(binaries / plugin)]),
            input=conf if isinstance(conf, bytes) else json.dumps(conf).encode(),
            capture_output=True,
            env={key: value for key, value in environ.items() if value is not None},
            timeout=30,
            check=False,
        )
        document = json.loads(done.stdout) if done.stdout else None
        return Answer(done.returncode, document, done.stderr.decode())

    return run


class Node:
    """A namespace in which chains of plugins make pods."""

    def __init__(self, namespace, make_netns, *, binaries, directory):
        self.namespace = namespace
        self.directory = directory
        self._make_netns = make_netns
        self._binaries = binaries

    def chain(self, *plugins, version="1.0.0"):
        """The network cbr0 of these plugins."""
        return Chain(
            conflist={"cniVersion": version, "name": "cbr0", "plugins": list(plugins)},
            namespace=self.namespace,
            path=(self._binaries, PLUGINS),
            cache=self.directory,
        )

    def bridge(self, **keys):
        """What the flannel plugin delegates to on a real node, leases in this test's directory."""
        ipam = {
            "type": "host-local",
            "dataDir": str(self.directory / "networks"),
            "ranges": [[{"subnet": "10.42.1.0/24"}]],
            "routes": [{"dst": "10.42.0.0/16"}],
        }
        usual = {"bridge": "cni0", "isDefaultGateway": True, "hairpinMode": True, "mtu": 1450}
        return {"type": "bridge", **usual, "ipam": ipam, **keys}

    def pod(self, word="pod", **capabilities):
        """A namespace for a pod, as an attachment."""
        return ContainerInterface(
            f"c-{word}",
            namespaces.path(self._make_netns(word)),
            args=f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={word}",
            capabilities=capabilities,
        )

    def run(self, *argv, pod=None, **options):
        """Run a command on the node, or in a pod's namespace."""
        namespace = pod.netns.name if pod else self.namespace
        return namespaces.run(namespace, *argv, **options)

    def veth_of(self, pod):
        """The host's end of a pod's eth0, by the kernel's own account."""
        links = json.loads(self.run("ip", "-j", "link", "show", pod=pod).stdout)
        index = next(link["link_index"] for link in links if link["ifname"] == "eth0")
        hosts = json.loads(self.run("ip", "-j", "link", "show").stdout)
        return next(link["ifname"] for link in hosts if link["ifindex"] == index)


@pytest.fixture
def node(make_netns, binaries, tmp_path):
    """A node for the pods of one test."""
    return Node(make_netns("node"), make_netns, binaries=binaries, directory=tmp_path)


@pytest.fixture
def subnet_env(tmp_path):
    """The node's subnet.env, as flanneld writes it."""
    file = tmp_path / "subnet.env"
    file.write_text(SUBNET_ENV, encoding="ascii")
    return file


@pytest.fixture
def conf(tmp_path, subnet_env, agent):
    """Our entry in the list of a cluster that runs flannel's manifest, in this test's places."""
    return {
        "type": "flannel",
        "delegate": {"hairpinMode": True, "isDefaultGateway": True},
        "ipam": {"dataDir": str(tmp_path / "networks")},
        "subnetFile": str(subnet_env),
        "dataDir": str(tmp_path / "flannel"),
        "stateDir": str(agent.state_dir),
    }


@pytest.fixture
def delegate(tmp_path):
    """A directory with the plugin `maker`, which speaks 1.1.0 as no distribution's does yet."""
    directory = tmp_path / "delegates"
    directory.mkdir()
    (directory / "maker").write_text(DELEGATE_PLUGIN, encoding="utf-8")
    (directory / "maker").chmod(0o755)
    return directory
