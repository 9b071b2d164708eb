# SPDX-License-Identifier: Apache-2.0
"""What Node objects mean, and the bytes that ours get."""

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from apiserver import PREFIX, make_node

from vxlane.errors import ConfigError
from vxlane.sources.kubernetes.annotations import Annotations
from vxlane.sources.model import Announcement, Backend, Node, Problem, derived_mac

FLANNEL = Annotations()
OWN = Announcement(IPv4Address("192.168.1.12"), Backend.VXLAN, 1, "12:c6:65:89:b4:e3")


def entry(node: dict[str, Any], own_name: str = "") -> Node | Problem | None:
    """What flannel's annotations make of `node`."""
    return FLANNEL.entry(node, own_name)


def test_a_node_as_flannel_leaves_it() -> None:
    """Address, pod CIDR, MAC and backend come from flannel's annotations and the spec."""
    assert entry(make_node(1)) == Node(
        name="node-00001",
        address=IPv4Address("172.16.0.1"),
        pod_cidr=IPv4Network("10.64.1.0/24"),
        vtep_mac="0e:00:00:00:00:01",
    )


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ({"backend_data": "{"}, "not JSON"),
        ({"backend_data": "null"}, "hold no VtepMAC"),
        ({"backend_data": "[1]"}, "hold no VtepMAC"),
        ({"backend_data": '{"VtepMAC":7}'}, "hold no VtepMAC"),
        ({"backend_data": '{"VNI":1,"VtepMAC":"zz"}'}, "'zz'"),
        ({"backend_data": '{"VtepMAC":"01:00:5e:00:00:01"}'}, "unicast"),
        ({"public_ip": "10.0.0.300"}, "'10.0.0.300'"),
        ({"public_ip": ""}, "address"),
        ({"public_ip": "2001:db8::1"}, "IPv4"),
    ],
)
def test_garbage_is_a_problem_with_its_words(annotations: dict[str, str], reason: str) -> None:
    """An annotation that can't be used gives a problem that names the node and quotes the fault."""
    found = entry(make_node(7, **annotations))
    assert isinstance(found, Problem)
    assert found.node == "node-00007"
    assert reason in found.reason


def test_a_missing_annotation_is_called_missing() -> None:
    """A node without public-ip is a problem that names the annotation, not one with address ''."""
    node = make_node(7)
    del node["metadata"]["annotations"][f"{PREFIX}/public-ip"]
    assert entry(node) == Problem("node-00007", f"annotation {PREFIX}/public-ip is missing")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"podCIDR": "10.1.2.0/24"}, "10.1.2.0/24"),
        ({"podCIDRs": ["fd00::/64", "10.1.3.0/24"], "podCIDR": "fd00::/64"}, "10.1.3.0/24"),
        ({"podCIDR": "fd00::/64"}, None),
        ({"podCIDR": "10.1.2.1/24"}, None),
        ({}, None),
    ],
)
def test_the_ipv4_pod_cidr_counts(spec: dict[str, Any], expected: str | None) -> None:
    """The first IPv4 range of podCIDRs, or podCIDR, is the node's; none of them is a problem."""
    node = make_node(1)
    node["spec"] = spec
    found = entry(node)
    assert (str(found.pod_cidr) if isinstance(found, Node) else None) == expected


def test_a_node_without_flannel_is_no_peer_but_must_not_be_us() -> None:
    """A node that is not kube-subnet-managed is passed over, unless it is this one: a problem."""
    node = make_node(1)
    del node["metadata"]["annotations"][f"{PREFIX}/kube-subnet-manager"]
    assert entry(node) is None
    assert isinstance(entry(node, "node-00001"), Problem)
    del node["metadata"]["annotations"]
    assert entry(node) is None


def test_nodes_of_other_backends_are_known_as_such() -> None:
    """host-gw is a backend with no MAC on the wire, anything but vxlan and host-gw is OTHER."""
    native = entry(make_node(1, backend_type="host-gw", backend_data="null"))
    assert isinstance(native, Node)
    assert native.backend is Backend.HOST_GW
    assert native.vtep_mac == derived_mac("node-00001")
    foreign = entry(make_node(1, backend_type="wireguard", backend_data='{"PublicKey":"x"}'))
    assert isinstance(foreign, Node)
    assert foreign.backend is Backend.OTHER


def test_very_old_backend_data_and_keys_of_any_case_are_read() -> None:
    """Data without a VNI, and keys that Go would match without regard to case, give the MAC."""
    for data in '{"VtepMAC":"0e:29:66:26:fa:6d"}', '{"vni":1,"vtepMac":"0E:29:66:26:FA:6D"}':
        found = entry(make_node(1, backend_data=data))
        assert isinstance(found, Node)
        assert found.vtep_mac == "0e:29:66:26:fa:6d"


def test_our_annotations_are_flannels_byte_for_byte() -> None:
    """Compact JSON with the VNI first and the MAC last, and the three strings beside it."""
    assert FLANNEL.wanted(OWN, {}) == {
        f"{PREFIX}/backend-data": '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}',
        f"{PREFIX}/backend-type": "vxlan",
        f"{PREFIX}/kube-subnet-manager": "true",
        f"{PREFIX}/public-ip": "192.168.1.12",
    }


def test_flannels_own_reader_finds_the_mac_in_our_data() -> None:
    """Flannel trims `"}` and cuts at `:"` into exactly two pieces: our data give it the MAC."""
    data = FLANNEL.wanted(OWN, {})[f"{PREFIX}/backend-data"]
    assert data.strip('"}').split(':"') == ['{"VNI":1,"VtepMAC"', "12:c6:65:89:b4:e3"]


def test_host_gw_announces_null() -> None:
    """A host-gw node has the backend data that Go makes of nothing."""
    own = Announcement(OWN.address, Backend.HOST_GW, 1, OWN.vtep_mac)
    assert FLANNEL.wanted(own, {})[f"{PREFIX}/backend-data"] == "null"


def test_only_what_differs_is_wanted() -> None:
    """Annotations that are as they should be are not written again."""
    found = FLANNEL.wanted(OWN, {}) | {f"{PREFIX}/public-ip": "10.9.9.9", "other": "x"}
    assert FLANNEL.wanted(OWN, found) == {f"{PREFIX}/public-ip": "192.168.1.12"}


def test_an_overwritten_address_is_announced_instead_of_ours() -> None:
    """public-ip-overwrite, the address behind a NAT, becomes public-ip."""
    found = {f"{PREFIX}/public-ip-overwrite": "203.0.113.7"}
    assert FLANNEL.wanted(OWN, found)[f"{PREFIX}/public-ip"] == "203.0.113.7"


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/backend-type"),
        ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/backend-type"),
        ("example.com/second", "example.com/second-backend-type"),
        ("example.com/second-", "example.com/second-backend-type"),
    ],
)
def test_prefixes_are_completed_as_flannel_does(prefix: str, name: str) -> None:
    """A slash or a hyphen is put behind a prefix that lacks it."""
    assert Annotations(prefix).type == name


@pytest.mark.parametrize("prefix", ["", "flannel", "a.b/c/d", "Flannel.io", "a.b/c d"])
def test_impossible_prefixes_are_refused(prefix: str) -> None:
    """A prefix that makes no annotation name is an error that shows what one looks like."""
    with pytest.raises(ConfigError, match="must look like"):
        Annotations(prefix)
