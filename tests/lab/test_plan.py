# SPDX-License-Identifier: Apache-2.0
"""Names and addresses of a lab."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from vxlane.errors import ConfigError
from vxlane.lab.plan import LabNode, LabPod, is_namespace_of, plan_nodes


def test_nodes_are_numbered():
    """Node n has underlay address .10+n, pods 10.42.n.0/24 and a MAC of its own."""
    first, second = plan_nodes("lab", 2, kernel_only=1)
    assert (first.name, first.address, first.pod_cidr, first.kernel_only) == (
        "lab-node1",
        IPv4Address("192.168.77.11"),
        IPv4Network("10.42.1.0/24"),
        False,
    )
    assert second.kernel_only
    assert second.directory == Path("/run/vxlane-lab/lab/node2")
    assert first.vtep_mac != second.vtep_mac


@pytest.mark.parametrize(("count", "kernel_only"), [(0, 0), (201, 0), (2, 3), (2, -1)])
def test_impossible_counts(count, kernel_only):
    """No nodes, more than fit, or more kernel-only ones than nodes are refused."""
    with pytest.raises(ConfigError):
        plan_nodes("lab", count, kernel_only=kernel_only)


def test_records_survive_json():
    """Nodes and pods come back from their JSON as they were."""
    (node,) = plan_nodes("lab", 1, kernel_only=0)
    assert LabNode.from_json(node.to_json()) == node
    pod = LabPod(
        "lab-node1-pod1", node.name, IPv4Address("10.42.1.2"), "veth1", "02:00:00:00:00:01"
    )
    assert LabPod.from_json(pod.to_json()) == pod


@pytest.mark.parametrize("namespace", ["a-switch", "a-node1", "a-node12-pod3", "a-outside"])
def test_own_namespaces(namespace):
    """These are what lab "a" makes."""
    assert is_namespace_of("a", namespace)


@pytest.mark.parametrize(
    "namespace",
    [
        *("a", "a-b-node1", "b-node1", "a-node", "a-node1-pod1-x", "a-node1\n"),
        *("a-node0", "a-node01", "a-node1-pod02", "a-node\N{ARABIC-INDIC DIGIT THREE}"),
    ],
)
def test_foreign_namespaces(namespace):
    """These lab "a" leaves alone."""
    assert not is_namespace_of("a", namespace)
