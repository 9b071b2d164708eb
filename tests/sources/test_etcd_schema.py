# SPDX-License-Identifier: Apache-2.0
"""Flannel's keys, values and choice of subnets."""

import json
from ipaddress import IPv4Address, IPv4Network

import pytest

from vxlane.errors import ConfigError
from vxlane.sources.etcd.schema import (
    Pool,
    address_of,
    cidr_of,
    entry,
    key_of,
    parse_pool,
    value_of,
)
from vxlane.sources.model import Announcement, Backend, Node, Problem

# As flanneld v0.20.2 wrote it.
KEY = "/coreos.com/network/subnets/10.42.66.0-24"
VALUE = (
    b'{"PublicIP":"192.168.1.12","PublicIPv6":null,"BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"0e:29:66:26:fa:6d"}}'
)


def pool(**config: object) -> Pool:
    """The pool of a config with these members."""
    return parse_pool(json.dumps(config).encode())


def test_what_flannel_wrote_is_a_node() -> None:
    """Key and value of a real flanneld give address, pod CIDR, MAC and backend."""
    address = IPv4Address("192.168.1.12")
    cidr = IPv4Network("10.42.66.0/24")
    assert entry(KEY, VALUE) == Node("192.168.1.12", address, cidr, "0e:29:66:26:fa:6d")
    assert key_of(cidr) == "10.42.66.0-24"
    assert address_of(VALUE) == address


def test_our_value_is_flannels_byte_for_byte() -> None:
    """The announcement of the same node is the same text; host-gw has no BackendData."""
    address = IPv4Address("192.168.1.12")
    assert value_of(Announcement(address, Backend.VXLAN, 1, "0e:29:66:26:fa:6d")) == VALUE
    native = value_of(Announcement(address, Backend.HOST_GW, 1, "0e:29:66:26:fa:6d"))
    assert native == b'{"PublicIP":"192.168.1.12","PublicIPv6":null,"BackendType":"host-gw"}'
    assert isinstance(entry(KEY, native), Node)


def test_a_dual_stack_key_gives_its_ipv4_part() -> None:
    """What follows the ampersand is IPv6 and not ours."""
    assert str(cidr_of("10.5.52.0-24&fd00:5:34::-64")) == "10.5.52.0/24"


@pytest.mark.parametrize(
    "key", ["", "10.5.52.0", "10.5.52.0-33", "10.5.52.1-24", "x-24", "fd00::-64"]
)
def test_keys_that_are_no_subnet_are_refused(key: str) -> None:
    """A key that does not hold an IPv4 subnet is an error, and its entry a problem by that name."""
    with pytest.raises(ConfigError):
        cidr_of(key)
    assert isinstance(entry(f"/n/subnets/{key}", VALUE), Problem)


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"PublicIP":1}'])
def test_garbage_is_no_node(value: bytes) -> None:
    """A value that is not flannel's is a problem, and no node's address."""
    assert isinstance(entry(KEY, value), Problem)
    assert address_of(value) is None


@pytest.mark.parametrize(
    ("config", "length", "first", "last"),
    [
        ({"Network": "10.42.0.0/16"}, 24, "10.42.1.0", "10.42.255.0"),
        ({"network": "10.42.0.0/22"}, 24, "10.42.1.0", "10.42.3.0"),
        ({"Network": "10.42.0.0/24"}, 26, "10.42.0.64", "10.42.0.192"),
        ({"Network": "10.42.0.0/28"}, 30, "10.42.0.4", "10.42.0.12"),
        ({"Network": "10.0.0.0/8", "SubnetLen": 20}, 20, "10.0.16.0", "10.255.240.0"),
        (
            {"Network": "10.0.0.0/8", "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0"},
            24,
            "10.10.0.0",
            "10.99.0.0",
        ),
        ({"Network": "0.0.0.0/0"}, 24, "0.0.1.0", "255.255.255.0"),
    ],
)
def test_pools_follow_flannels_rules(
    config: dict[str, object], length: int, first: str, last: str
) -> None:
    """Length, first and last subnet are what flannel derives from the same config."""
    found = pool(**config)
    assert (found.length, str(found.first), str(found.last)) == (length, first, last)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"Network": "10.42.0.0/29"},
        {"Network": "10.42.0.1/16"},
        {"Network": "10.42.0.0/16", "SubnetLen": 31},
        {"Network": "10.42.0.0/16", "SubnetLen": 17},
        {"Network": "10.42.0.0/16", "SubnetLen": "x"},
        {"Network": "10.42.0.0/16", "SubnetMin": "10.43.0.0"},
        {"Network": "10.42.0.0/16", "SubnetMax": "10.42.9.1"},
        {"Network": "10.42.0.0/16", "SubnetMin": [1]},
    ],
)
def test_configs_that_flannel_refuses_are_refused(config: dict[str, object]) -> None:
    """A network too small, a length out of range, and bounds off the grid are errors."""
    with pytest.raises(ConfigError, match="is wrong"):
        pool(**config)
    with pytest.raises(ConfigError, match="not JSON"):
        parse_pool(b"Network: 10.42.0.0/16")


def test_a_chosen_subnet_is_free_and_in_bounds() -> None:
    """Every choice is of the right length, in the pool, and overlaps nothing that is taken."""
    found = pool(Network="10.42.0.0/22", SubnetLen=25)
    taken = [IPv4Network(n) for n in ("10.42.1.0/24", "10.42.2.128/26", "10.42.0.128/25")]
    chosen = {found.choose(taken) for _ in range(100)}
    assert {str(cidr) for cidr in chosen} == {"10.42.2.0/25", "10.42.3.0/25", "10.42.3.128/25"}
    assert all(found.holds(cidr) for cidr in chosen)


def test_a_full_pool_has_nothing_to_choose() -> None:
    """When all is taken the error says what to give."""
    with pytest.raises(ConfigError, match="give a larger Network"):
        pool(Network="10.42.0.0/22").choose([IPv4Network("10.42.0.0/22")])


def test_a_large_pool_is_searched_quickly() -> None:
    """With 10,000 subnets taken, the first hundred free ones are still the choice."""
    found = pool(Network="10.0.0.0/8")
    taken = [IPv4Network((int(found.first) + 256 * n, 24)) for n in range(10_000)]
    number = (int(found.choose(taken).network_address) - int(found.first)) // 256
    assert 10_000 <= number < 10_100
