# SPDX-License-Identifier: Apache-2.0
"""A real runtime: podman (CNI backend) starts real containers on two nodes of a lab."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess

import machinecan
import pytest
from podmanconf import CONTAINERS_CONF

from vxlane.lab import namespaces, pods
from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for

MB = 1 << 20
APPLETS = ("sh", "sleep", "ping", "httpd", "wget", "md5sum")
NETWORK_CONF = """\
[network]
network_backend = "cni"
network_config_dir = "{0}/net.d"
cni_plugin_dirs = ["{0}/bin", "{1}"]
default_network = "cbr0"
"""


class Podman:
    """The runtime of one node, with storage, networks and plugins of its own."""

    def __init__(self, node, directory, role):
        self.node = node
        self.directory = directory
        self.rootfs = directory / "rootfs"
        self._containers = []
        self._install(role)
        conf = CONTAINERS_CONF + NETWORK_CONF.format(directory, pods.PLUGINS)
        (directory / "containers.conf").write_text(conf, encoding="utf-8")
        (self.rootfs / "bin").mkdir(parents=True)
        for name in ("proc", "sys", "dev", "etc", "tmp"):
            (self.rootfs / name).mkdir()
        shutil.copy2(shutil.which("busybox"), self.rootfs / "bin" / "busybox")
        for applet in APPLETS:
            (self.rootfs / "bin" / applet).symlink_to("busybox")

    def _install(self, role):
        """`vxlane install` in the role, beside what a node has in its place."""
        confs = self.directory / "net.d"
        confs.mkdir()
        if role != "main":
            usual = pods.chain(self.node).conflist
            portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
            listed = {**usual, "plugins": [usual["plugins"][0], portmap]}
            (confs / "10-flannel.conflist").write_text(json.dumps(listed), encoding="utf-8")
        if role == "none":
            return
        places = ["--cni-bin-dir", str(self.directory / "bin"), "--cni-conf-dir", str(confs)]
        form = ["--role", role, "--form", "conflist", "--required"]
        env = {"VXLANE_STATE_DIR": str(self.node.directory)}
        namespaces.run(None, program("vxlane"), "install", *places, *form, env=env)
        (confs / "10-flannel.conflist").unlink(missing_ok=True)  # podman takes no name twice
        if role == "main":
            file = confs / "00-vxlane.conflist"
            listed = json.loads(file.read_text(encoding="utf-8"))
            listed["plugins"][0] |= {
                "subnetFile": str(self.node.directory / "subnet.env"),
                "dataDir": str(self.directory / "flannel"),
                "ipam": {"dataDir": str(self.directory / "networks")},
            }
            file.write_text(json.dumps(listed), encoding="utf-8")

    def __call__(self, *arguments):
        """Run podman on the node; what it says."""
        env = {"CONTAINERS_CONF": str(self.directory / "containers.conf")}
        places = ["--root", self.directory / "root", "--runroot", self.directory / "run"]
        argv = ["podman", "--storage-driver", "vfs", *map(str, places), *arguments]
        return namespaces.run(self.node.name, *argv, env=env).stdout

    def start(self, name, *options):
        """A container that sleeps; its address."""
        self._containers.append(name)
        command = ["--network", "cbr0", "--rootfs", str(self.rootfs), "/bin/sleep", "600"]
        self("run", "-d", "--name", name, *options, *command)
        shown = json.loads(self("inspect", name))[0]["NetworkSettings"]["Networks"]["cbr0"]
        return shown["IPAddress"]

    def remove(self, name):
        """End the container, which has its network undone."""
        self._containers.remove(name)
        self("rm", "-f", "-t", "0", name)

    def remove_all(self):
        """Leave nothing."""
        for name in list(self._containers):
            with contextlib.suppress(Exception):
                self.remove(name)


@pytest.fixture(scope="module")
def _podman_has_cni(tmp_path_factory):
    """Podman 5 is built without CNI."""
    place = tmp_path_factory.mktemp("podman")
    (place / "conf").write_text('[network]\nnetwork_backend = "cni"\n', encoding="utf-8")
    places = ["--root", str(place / "root"), "--runroot", str(place / "run")]
    argv = ["podman", "--storage-driver", "vfs", *places, "info"]
    env = {**os.environ, "CONTAINERS_CONF": str(place / "conf")}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=env)
    if "cni support is not enabled" in done.stderr:
        machinecan.lacks("podman with CNI")


@pytest.fixture(params=["chained", "main", "none"])
def runtimes(request, _podman_has_cni, make_lab):
    """A lab of two nodes, and a runtime on each with the plugin in either role or without it."""
    lab = make_lab(nodes=2, pods_per_node=0, kernel_only=0)
    both = []
    for name in ("node1", "node2"):
        node = lab.node(name)
        directory = node.directory / "p"  # podman allows its --runroot 50 characters
        directory.mkdir()
        both.append(Podman(node, directory, request.param))
    yield lab, *both
    for podman in both:
        podman.remove_all()


def _accelerated(lab, node):
    """Whether the node's one container is."""
    return [pod["guarded"] for pod in lab.vxlane(node, "pods")] == [[]]


def test_containers_talk_through_the_bypass(runtimes):
    """Two containers exchange data that is bypassed, and their end leaves nothing behind."""
    lab, first, second = runtimes
    first.start("a")
    address = second.start("b")
    for node in ("node1", "node2"):  # Without the plugin a container may be there first.
        wait_for(lambda node=node: _accelerated(lab, node), "the container's programs")
    content = random.Random("b").randbytes(100 * MB)
    (second.rootfs / "tmp" / "file").write_bytes(content)
    second("exec", "b", "httpd", "-p", "7000", "-h", "/tmp")
    with lab.verdicts("node1", "node2") as seen:
        assert "3 packets received" in first("exec", "a", "ping", "-c3", "-W2", address)
        fetch = f"wget -q -O - http://{address}:7000/file | md5sum"
        digest = first("exec", "a", "sh", "-c", fetch).split()[0]
    assert digest == hashlib.md5(content).hexdigest()
    assert seen["from_pod", "encapsulated"] > 1000
    assert seen["from_nic", "decapsulated"] > 1000
    for podman, node, name in ((first, "node1", "a"), (second, "node2", "b")):
        assert len(lab.vxlane(node, "pods")) == 1
        podman.remove(name)
        wait_for(lambda node=node: lab.vxlane(node, "pods") == [], "the container's end")
        assert "veth" not in lab.exec(node, "ip", "-br", "link").stdout
        assert not list(podman.directory.glob("networks/cbr0/10.*"))
        assert not list(podman.directory.glob("flannel/*"))
