# SPDX-License-Identifier: Apache-2.0
"""The plugin under the configuration that `vxlane install` writes."""

import dataclasses

import pytest
from cniplace import FLANNEL, Place

from vxlane.runtime import network


@pytest.fixture
def place(tmp_path):
    """A node without anything of CNI."""
    return Place(tmp_path)


def test_main_role(place, call, tmp_path):
    """The main role's list makes pods, maps ports, shapes, and only then attaches."""
    assert place.vxlane("install", "--role", "main").returncode == 0
    listed = place.listed()
    kinds = [plugin["type"] for plugin in listed["plugins"]]
    assert kinds == ["vxlane", "portmap", "bandwidth", "vxlane"]
    first, last = listed["plugins"][0], listed["plugins"][-1]
    assert (first["accelerate"], last) == (False, {"type": "vxlane"})
    common = {key: listed[key] for key in ("name", "cniVersion")}
    nowhere = {"subnetFile": str(tmp_path / "none")}
    answer = call("ADD", {**first, **common, **nowhere})
    assert (answer.document["code"], answer.document["msg"][:20]) == (11, "flannel's subnet.env")


def test_drop_in_as_libcni_reads_it(place, node, agent, monkeypatch):
    """Libcni's list of flannel's file and the drop-in has a pod accelerated, and undone."""
    place.flannel(plugins=[node.bridge()])
    monkeypatch.setenv("VXLANE_STATE_DIR", str(agent.state_dir))
    assert place.vxlane("install", "--form", "drop-in").returncode == 0
    listed = network.in_force(place.conf, "cbr0", drop_ins=True)
    chain = dataclasses.replace(node.chain(), conflist=listed)
    pod = node.pod()
    result = chain.add(pod)
    assert result["cniVersion"] == listed["cniVersion"] == FLANNEL["cniVersion"]
    assert agent.heard[-1]["host_ifname"] == node.veth_of(pod)
    chain.delete(pod)
    assert [heard["op"] for heard in agent.heard] == ["add", "remove"]
