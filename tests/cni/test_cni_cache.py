# SPDX-License-Identifier: Apache-2.0
"""Pods that were made while no agent was there, as the next agent recalls them."""

import json
import sys

PROBE = """
import dataclasses, json, sys
from pathlib import Path
from vxlane.pods import cni_cache
from vxlane.host.devices import Devices
devices, pods = Devices(), cni_cache.read(Path(sys.argv[1]))
print(json.dumps([dataclasses.asdict(found) for found in cni_cache.confirmed(pods, devices)]))
devices.close()
"""


def recalled(node):
    """What an agent that starts on the node now recalls."""
    return json.loads(node.run(sys.executable, "-c", PROBE, str(node.directory)).stdout)


def test_pods_are_recalled(node):
    """Every living pod is recalled with its veth, MAC, address and name, a deleted one is not."""
    chain = node.chain(node.bridge(), {"type": "portmap", "capabilities": {"portMappings": True}})
    pods = [node.pod(word) for word in ("one", "two", "three")]
    results = [chain.add(pod) for pod in pods]
    chain.delete(pods[2])
    found = {attachment["container_id"]: attachment for attachment in recalled(node)}
    assert sorted(found) == ["c-one", "c-two"]
    assert found["c-one"] == {
        "container_id": "c-one",
        "ifname": "eth0",
        "netns": str(pods[0].netns),
        "host_ifname": node.veth_of(pods[0]),
        "mac": results[0]["interfaces"][2]["mac"],
        "addresses": ["10.42.1.2"],
        "name": "shop/one",
        "network": "cbr0",
        "host_mac": "",
    }


def test_the_kernel_has_the_last_word(node):
    """A pod whose veth is gone, or whose far end is another device, is not recalled."""
    chain = node.chain(node.bridge())
    gone, renamed, changed = (node.pod(word) for word in ("gone", "renamed", "changed"))
    for pod in (gone, renamed, changed):
        chain.add(pod)
    node.run("ip", "link", "del", "eth0", pod=gone)
    node.run("ip", "link", "set", "eth0", "down", pod=renamed)
    node.run("ip", "link", "set", "eth0", "name", "eth9", pod=renamed)
    node.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99", pod=changed)
    assert recalled(node) == []


def test_name_that_was_given_again(node):
    """A veth that only has the name of a claimed one is not taken for it."""
    chain = node.chain(node.bridge())
    pod = node.pod()
    chain.add(pod)
    name = node.veth_of(pod)
    node.run("ip", "link", "del", name)
    node.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0")
    assert recalled(node) == []
