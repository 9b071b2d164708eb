# SPDX-License-Identifier: Apache-2.0
"""What the agent reads of pods that were there before it."""

import base64
import json
from ipaddress import ip_address

import pytest

from vxlane.pods import cni_cache

RESULT = {
    "cniVersion": "0.3.1",
    "interfaces": [
        {"name": "cni0", "mac": "AA:00:00:00:00:01"},
        {"name": "veth1", "mac": "aa:00:00:00:00:02"},
        {"name": "eth0", "mac": "AA:00:00:00:00:03", "sandbox": "/run/netns/x"},
    ],
    "ips": [{"version": "4", "interface": 2, "address": "10.42.66.2/24"}],
}


@pytest.fixture
def node(tmp_path):
    """A cache of libcni with one pod, and host-local's lease of its address."""
    remember(tmp_path, "c1", RESULT)
    lease(tmp_path, "10.42.66.2", "c1\r\neth0")
    return tmp_path


def remember(directory, container, result, **keys):
    """Write an entry as libcni does."""
    config = {"name": "cbr0", "plugins": [{"type": "flannel"}, {"type": "vxlane"}]}
    entry = {
        "kind": "cniCacheV1",
        "containerId": container,
        "config": base64.b64encode(json.dumps(config).encode()).decode(),
        "ifName": "eth0",
        "networkName": "cbr0",
        "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", "b"]],
        "result": result,
        **keys,
    }
    file = directory / "results" / f"cbr0-{container}-eth0"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(entry), encoding="utf-8")


def lease(directory, address, content):
    """Write a lease as host-local does."""
    file = directory / "networks" / "cbr0" / address
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")


def test_names_that_cant_be_shown(node):
    """What is no text is left out of a pod, and the pod counts by the rest."""
    result = json.loads(json.dumps(RESULT))
    result["interfaces"].insert(0, {"name": "veth\ud800"})
    result["ips"][0]["interface"] = 3
    arguments = [["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", "b\nWARNING"]]
    remember(node, "c1", result, cniArgs=arguments, netns="/run/netns/\0")
    (pod,) = found(node)
    assert (pod.host_ifnames, pod.name, pod.netns) == (("cni0", "veth1"), "a", "")


def found(directory):
    """The claims in a directory."""
    return cni_cache.read(directory)


def test_a_pod(node):
    """An entry and its lease make a claim with all that an attach needs to be verified."""
    assert found(node) == [
        cni_cache.CachedPod(
            container_id="c1",
            ifname="eth0",
            network="cbr0",
            netns="",
            name="a/b",
            mac="aa:00:00:00:00:03",
            addresses=(ip_address("10.42.66.2"),),
            host_ifnames=("cni0", "veth1"),
        )
    ]


@pytest.mark.parametrize("content", ["c2\r\neth0", "c1\r\nnet1", "", "\xff"])
def test_address_that_is_another_s(node, content):
    """An address that host-local gave to another container, or interface, is not claimed."""
    lease(node, "10.42.66.2", content)
    assert found(node) == []


def test_address_that_is_free(node):
    """An address that host-local took back is not claimed."""
    (node / "networks" / "cbr0" / "10.42.66.2").unlink()
    assert found(node) == []


@pytest.mark.parametrize("content", ["c1\r\neth0", "c1\neth0\n", "c1"])
def test_leases_of_all_ages(node, content):
    """host-local's older leases, without an interface, count as well."""
    lease(node, "10.42.66.2", content)
    assert len(found(node)) == 1


def test_other_ipam(node):
    """The addresses of a network that host-local knows nothing of stand."""
    remember(node, "c2", RESULT, networkName="other")
    assert [claim.network for claim in found(node)] == ["cbr0", "other"]


def test_newer_entries_name_the_namespace(node):
    """From 1.3 on libcni tells the path of the container's namespace."""
    remember(node, "c1", RESULT, netns="/run/netns/x")
    assert found(node)[0].netns == "/run/netns/x"


def test_dual_stack(node):
    """A pod of both families claims an address of each that is leased to it."""
    second = {"interface": 2, "address": "fd42::2/64"}
    remember(node, "c1", {**RESULT, "ips": [*RESULT["ips"], second]})
    assert len(found(node)[0].addresses) == 1
    lease(node, "fd42::2", "c1\r\neth0")
    assert found(node)[0].addresses == (ip_address("10.42.66.2"), ip_address("fd42::2"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"result": {}}'])
def test_broken_entries(node, content):
    """An entry that can't be read does not keep the others from being found."""
    (node / "results" / "cbr0-a-eth0").write_bytes(content)
    assert len(found(node)) == 1


@pytest.mark.parametrize(
    "result",
    [
        {},
        None,
        [],
        {"ips": None},
        {"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.42.66.2/24", "interface": 0}]},
        {"ips": [{"address": "nonsense"}]},
        {"ips": [{}]},
    ],
)
def test_results_without_an_address(node, result):
    """A result that gives the pod no address makes no claim."""
    remember(node, "c1", result)
    assert found(node) == []


def test_no_cache_at_all(tmp_path):
    """A node on which no pod ever was has no claims."""
    assert found(tmp_path) == []
