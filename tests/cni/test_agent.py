# SPDX-License-Identifier: Apache-2.0
"""The plugin and a real agent: what stands when a call returns, and what outlives either."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from vxlane.lab import namespaces, pods
from vxlane.lab.waiting import wait_for
from vxlane.runtime.chain import Chain, ContainerInterface

HOOKS = """
import sys
from pathlib import Path
from vxlane.datapath.attach import Hooks, Method
from vxlane.datapath.programs import pin_directory
from vxlane.host.devices import Devices
devices = Devices()
hooks = Hooks(pin_directory(Path(sys.argv[1])), Method.AUTO, devices.socket)
if "detach" in sys.argv:
    hooks.detach_all()
print(*sorted(p.label for p, i in hooks.attached() if i == devices.by_name(sys.argv[2]).index))
devices.close()
"""


class Node:
    """A lab's first node, on which the test makes pods."""

    def __init__(self, lab, make_netns, binaries):
        self.lab = lab
        self.node = lab.node("node1")
        self._make_netns = make_netns
        usual = pods.chain(self.node)
        path = (binaries, pods.PLUGINS)
        conflist = {**usual.conflist, "cniVersion": "1.0.0"}
        self.chain = Chain(conflist, namespace=self.node.name, path=path, cache=usual.cache)
        self._made = []
        self._before = frozenset()
        self._before = self.known()

    def new(self, word):
        """A namespace for a pod, as an attachment."""
        name = self._make_netns(word)
        self._made.append(ContainerInterface(name, namespaces.path(name)))
        return self._made[-1]

    def add(self, word):
        """Make a pod; its attachment, veth and address."""
        pod = self.new(word)
        result = self.chain.add(pod)
        return pod, result["interfaces"][1]["name"], result["ips"][0]["address"].split("/")[0]

    def hooks(self, veth, *more):
        """The programs that stand on a device, as the kernel has it."""
        argv = [sys.executable, "-c", HOOKS, str(self.node.directory), veth, *more]
        return self.lab.exec("node1", *argv).stdout.split()

    def known(self):
        """The addresses of the test's pods that the programs know."""
        with self.lab.maps("node1") as maps:
            return {str(address) for address in maps.pods()} - self._before

    def remove_all(self):
        """Undo every ADD, those that are undone too."""
        for pod in self._made:
            self.chain.delete(pod)

    def restart(self):
        """Start the agent again, with the chain's own cache of results."""
        self.lab.start_agent("node1", "--cni-cache-dir", str(self.chain.cache))


@pytest.fixture
def one(lab, make_netns, binaries):
    """A node whose agent lives on."""
    node = Node(lab, make_netns, binaries)
    yield node
    node.remove_all()


@pytest.fixture
def mortal(make_lab, make_netns, binaries):
    """A node of the test's own, whose agent it may kill."""
    return Node(make_lab(nodes=1, pods_per_node=0, kernel_only=0), make_netns, binaries)


def call(one, binaries, command, **keys):
    """Call the plugin on the node without a container; what it says on stdout."""
    conf = {"cniVersion": "1.1.0", "name": "cbr0", "type": "vxlane", **keys}
    conf["stateDir"] = str(one.node.directory)
    env = {"CNI_COMMAND": command, "CNI_PATH": str(binaries)}
    stdin = json.dumps(conf)
    return namespaces.run(one.node.name, str(binaries / "vxlane"), stdin=stdin, env=env).stdout


def test_all_stands_when_add_returns(one):
    """When ADD returns the pod is in the map and both programs are on its veth."""
    pod, veth, address = one.add("pod")
    assert one.known() == {address}
    assert one.hooks(veth) == ["from_pod", "to_pod"]
    one.chain.delete(pod)
    assert one.known() == set()


def test_the_first_packet_counts(one):
    """The first echo after ADD is learned from both ways, so that the second is bypassed."""
    pod, _, _ = one.add("pod")
    remote = one.lab.address("node2-pod1")
    with one.lab.verdicts("node1") as seen:
        namespaces.run(pod.netns.name, "ping", "-c2", "-i0.2", "-W2", remote)
    assert seen["from_pod", "flow_unknown"] == 1
    assert seen["to_pod", "learned"] == 1
    assert seen["from_pod", "encapsulated"] == 1


def test_check_restores_what_was_taken_away(one):
    """CHECK of a pod that lost its programs succeeds, with them attached again."""
    pod, veth, _ = one.add("pod")
    assert one.hooks(veth, "detach") == []
    plugin = one.chain.conflist["plugins"][1]
    only_ours = Chain(
        {**one.chain.conflist, "plugins": [plugin]},
        namespace=one.chain.namespace,
        path=one.chain.path,
        cache=one.chain.cache,
    )
    only_ours.check(pod)
    assert one.hooks(veth) == ["from_pod", "to_pod"]


def test_pods_survive_the_agent(mortal):
    """A new agent knows the pods that were told to the old one, and their programs stay."""
    _, veth, address = mortal.add("pod")
    mortal.lab.kill_agent("node1")
    assert mortal.hooks(veth) == ["from_pod", "to_pod"]
    mortal.restart()
    assert mortal.known() == {address}
    assert mortal.hooks(veth) == ["from_pod", "to_pod"]


def test_pods_made_without_an_agent(mortal):
    """Pods that were made while no agent was there are found by the next one, deleted ones not."""
    mortal.lab.kill_agent("node1")
    _, veth, kept = mortal.add("kept")
    gone, _, _ = mortal.add("gone")
    mortal.chain.delete(gone)
    mortal.restart()
    wait_for(lambda: mortal.known() == {kept}, "the pod that no call told of")
    assert mortal.hooks(veth) == ["from_pod", "to_pod"]


def test_agent_that_lost_its_records(mortal):
    """An agent without records recalls its pods from the runtime's."""
    _, _, address = mortal.add("pod")
    mortal.lab.kill_agent("node1")
    shutil.rmtree(mortal.node.directory / "pods")
    mortal.restart()
    wait_for(lambda: mortal.known() == {address}, "the pod that the agent forgot")


def test_pod_deleted_without_an_agent(mortal):
    """DEL without an agent succeeds, and the next agent does not take the pod for living."""
    pod, _, _ = mortal.add("pod")
    mortal.lab.kill_agent("node1")
    mortal.chain.delete(pod)
    mortal.restart()
    assert mortal.known() == set()


def test_veth_that_goes_takes_its_pod_along(one):
    """A pod whose veth is removed is forgotten without a word from the runtime."""
    pod, veth, _ = one.add("pod")
    one.lab.exec("node1", "ip", "link", "del", veth)
    wait_for(lambda: one.known() == set(), "the end of the pod")
    one.chain.delete(pod)


def test_garbage_of_one_network(one, binaries):
    """GC has the agent forget the network's pods that are no attachments, and no others."""
    first, _, address = one.add("one")
    one.add("two")
    call(one, binaries, "GC", name="other", **{"cni.dev/valid-attachments": []})
    assert len(one.known()) == 2
    names = [first.container_id, *(pod.name for pod in one.lab.lab.pods)]
    valid = [{"containerID": name, "ifname": "eth0"} for name in names]
    call(one, binaries, "GC", **{"cni.dev/valid-attachments": valid})
    assert one.known() == {address}


def test_status_asks_the_agent(one, binaries):
    """STATUS with `required` is ready while the agent answers."""
    assert call(one, binaries, "STATUS", required=True) == ""


def test_many_pods_at_once(one):
    """Twenty pods that are made at once are all accelerated, and deleted at once all gone."""
    made = [one.new(f"m{number}") for number in range(20)]
    with ThreadPoolExecutor(len(made)) as pool:
        results = list(pool.map(one.chain.add, made))
        addresses = {result["ips"][0]["address"].split("/")[0] for result in results}
        assert len(addresses) == len(made)
        assert one.known() == addresses
        list(pool.map(one.chain.delete, made))
    assert one.known() == set()
