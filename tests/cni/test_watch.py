# SPDX-License-Identifier: Apache-2.0
"""Pods of real CNI plugins that nobody tells the agent of: it follows libcni's cache."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import standing

from vxlane.datapath.abi import Program
from vxlane.lab import namespaces, pods
from vxlane.lab.waiting import wait_for
from vxlane.runtime.chain import Chain, ContainerInterface

BOTH = {Program.FROM_POD, Program.TO_POD}


class Node:
    """A lab's node on which pods are made without vxlane's plugin."""

    def __init__(self, lab, cache):
        self.lab, self.node = lab, lab.node("node1")
        usual = pods.chain(self.node)
        bandwidth = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
        plugins = [usual.conflist["plugins"][0], bandwidth]
        plugins[0]["ipam"]["dataDir"] = str(cache / "networks")
        listed = {"cniVersion": "0.4.0", "name": "cbr0", "plugins": plugins}
        self.chain = Chain(listed, namespace=self.node.name, path=usual.path, cache=cache)

    def known(self):
        """The addresses that the programs know."""
        with self.lab.maps("node1") as maps:
            return {str(address) for address in maps.pods()}

    def programs(self, veth):
        """The programs that stand on a device, as the kernel has it."""
        return {kind for kind, name in standing.programs(self.node.name) if name == veth}


@pytest.fixture(scope="module")
def shared(make_module_lab, tmp_path_factory):
    """A node whose agent follows a cache that is not there yet, and one other node."""
    cache = tmp_path_factory.mktemp("var") / "cni"
    options = ["--cni-cache-dir", str(cache)]
    lab = make_module_lab(nodes=2, pods_per_node=0, kernel_only=0, agent_options=options)
    return Node(lab, cache)


@pytest.fixture
def node(shared, make_netns):
    """The node without pods, before and after."""
    made = []

    def new(word, **capabilities):
        name = make_netns(word)
        made.append(ContainerInterface(name, namespaces.path(name), capabilities=capabilities))
        return made[-1]

    shared.new = new
    yield shared
    for pod in made:
        shared.chain.delete(pod)
    wait_for(lambda: shared.known() == set(), "the end of all pods")


def ends(result):
    """Veth and address of a result."""
    return result["interfaces"][1]["name"], result["ips"][0]["address"].split("/")[0]


def test_a_pod_is_accelerated_by_itself(node):
    """ADD of bridge and bandwidth alone, and soon the pod is in the map and has its programs."""
    veth, address = ends(node.chain.add(node.new("pod")))
    wait_for(lambda: node.known() == {address}, "the pod that no plugin told of")
    wait_for(lambda: node.programs(veth) == BOTH, "its programs")


def test_its_packets_are_bypassed(node, make_netns):
    """A flow to a pod of the other node, whose agent was told by nobody either, is bypassed."""
    there = Node(node.lab, node.chain.cache)
    there.node = node.lab.node("node2")
    usual = pods.chain(there.node)
    there.chain = Chain(
        {**usual.conflist, "plugins": usual.conflist["plugins"][:1], "name": "far"},
        namespace=there.node.name,
        path=usual.path,
        cache=node.chain.cache,
    )
    name = make_netns("far")
    far = ContainerInterface(name, namespaces.path(name))
    far_veth, address = ends(there.chain.add(far))
    pod = node.new("near")
    veth, _ = ends(node.chain.add(pod))
    wait_for(lambda: node.programs(veth) == BOTH, "the pod's programs")
    wait_for(lambda: there.programs(far_veth) == BOTH, "those of the other node's pod")
    with node.lab.verdicts("node1", "node2") as seen:
        namespaces.run(pod.netns.name, "ping", "-c3", "-i0.2", "-W2", address)
    there.chain.delete(far)
    assert seen["from_pod", "encapsulated"] >= 1
    assert seen["from_nic", "decapsulated"] >= 1


def test_bandwidth_was_there_first(node):
    """A pod with a shaper gets its shaper, and is guarded in that direction."""
    shaped = {"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000}}
    veth, address = ends(node.chain.add(node.new("slow", **shaped)))
    assert "tbf" in namespaces.run(node.node.name, "tc", "qdisc", "show", "dev", veth).stdout
    wait_for(lambda: node.known() == {address}, "the pod")
    with node.lab.maps("node1") as maps:
        [pod] = maps.pods().values()
    assert pod.guard.name == "TO_POD"


def test_many_at_once(node):
    """Twenty pods that are made at once are all accelerated, deleted ones at once gone."""
    made = [node.new(f"m{number}") for number in range(20)]
    with ThreadPoolExecutor(len(made)) as pool:
        results = list(pool.map(node.chain.add, made))
    addresses = {ends(result)[1] for result in results}
    assert len(addresses) == len(made)
    wait_for(lambda: node.known() == addresses, "all pods")
    with ThreadPoolExecutor(len(made)) as pool:
        list(pool.map(node.chain.delete, made))
    wait_for(lambda: node.known() == set(), "the end of all")


def test_a_container_that_is_connected_again(node):
    """DEL and ADD for the same container and name: the new veth counts."""
    pod = node.new("again")
    before, _ = ends(node.chain.add(pod))
    wait_for(lambda: node.programs(before) == BOTH, "the first veth's programs")
    node.chain.delete(pod)
    veth, address = ends(node.chain.add(pod))
    wait_for(lambda: node.known() == {address}, "the new address")
    wait_for(lambda: node.programs(veth) == BOTH, "the new veth's programs")


@pytest.mark.parametrize("lie", ["mac", "netns", "address", "veth"])
def test_a_file_that_the_kernel_contradicts(node, lie):
    """A pod that is not as its file says is left to the kernel path, the true one beside it not."""
    veth, address = ends(node.chain.add(node.new("true")))
    wait_for(lambda: node.known() == {address}, "the true pod")
    other = node.new("other")
    cache = node.chain.cache
    file = cache / "results" / f"cbr0-{other.container_id}-eth0"
    aside = cache / "aside"
    chain = Chain(node.chain.conflist, namespace=node.node.name, path=node.chain.path, cache=aside)
    result = chain.add(other)
    entry = json.loads((aside / "results" / file.name).read_text(encoding="utf-8"))
    interfaces, ips = entry["result"]["interfaces"], entry["result"]["ips"]
    if lie == "mac":
        interfaces[2]["mac"] = "02:00:00:00:00:99"
    elif lie == "netns":
        entry["netns"] = str(node.new("empty").netns)
    elif lie == "address":
        ips[0]["address"] = f"{address}/24"  # host-local gave it to the true pod
    else:
        interfaces[1]["name"] = veth
    file.write_text(json.dumps(entry), encoding="utf-8")
    fine, right = ends(node.chain.add(node.new("fine")))
    wait_for(lambda: right in node.known(), "a pod whose file came later")
    wait_for(lambda: node.programs(fine) == BOTH, "its programs")
    assert node.known() == {address, right}
    assert node.programs(ends(result)[0]) == set()
    chain.delete(other)
    file.unlink()


def with_plugin(node, *behind):
    """The node's network with our plugin, and others behind it."""
    own = {"type": "vxlane", "stateDir": str(node.node.directory)}
    listed = {**node.chain.conflist}
    listed["plugins"] = [*listed["plugins"], own, *behind]
    return dataclasses.replace(node.chain, conflist=listed)


def test_a_plugin_behind_ours_may_give_another_mac(node):
    """The result in the cache has the MAC of tuning, and the programs know it then."""
    mac = "02:00:00:00:00:77"
    chain = with_plugin(node, {"type": "tuning", "mac": mac})
    _, address = ends(chain.add(node.new("tuned")))

    def known():
        with node.lab.maps("node1") as maps:
            return {str(pod.address): str(pod.mac) for pod in maps.pods().values()}

    wait_for(lambda: known() == {address: mac}, "the MAC that the pod has")


def test_the_plugins_word_counts_too(node):
    """With both, a pod that the plugin tells of is accelerated when ADD returns, and once."""
    veth, address = ends(with_plugin(node).add(node.new("told")))
    assert node.known() == {address}
    assert node.programs(veth) == BOTH
    ends(node.chain.add(node.new("next")))
    wait_for(lambda: len(node.known()) == 2, "a pod whose file came later")
    log = (node.node.directory / "agent.log").read_text(encoding="utf-8")
    assert log.count(f"{address} {veth}: accelerated") == 1
