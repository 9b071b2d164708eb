# SPDX-License-Identifier: Apache-2.0
"""Holding a subnet in a real etcd."""

import time
from ipaddress import IPv4Network

import pytest
from etcdnetwork import ONE, OWN, TWO, Network, announcement
from following import QUICK, until, wait_for

from vxlane.sources.etcd.access import EtcdAccess
from vxlane.sources.etcd.gateway import Gateway
from vxlane.sources.etcd.publisher import Term


def test_a_new_node_gets_a_free_subnet_for_a_day(network: Network) -> None:
    """The key is put once, with flannel's bytes, on a lease of 24 hours, and is our own entry."""
    network.subnet(1, ONE)
    source = network.follow()
    wait_for(source, lambda s: s.read_at)
    source.announce(announcement())
    own = wait_for(source, lambda s: s.own).own
    assert own is not None
    assert own.pod_cidr.subnet_of(IPv4Network("10.42.0.0/16"))
    assert str(own.pod_cidr) not in {"10.42.0.0/24", "10.42.1.0/24"}
    key = str(own.pod_cidr).replace("/", "-")
    assert network.keys()[key] == (
        '{"PublicIP":"192.168.1.10","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}}'
    )
    left = network.etcd.ctl("lease", "timetolive", f"{network.lease(key):x}")
    assert "granted with TTL(86400s)" in left


def test_a_restarted_node_finds_its_subnet_and_mac(network: Network) -> None:
    """After a restart the lease of our address is ours, with its MAC, and nothing is written."""
    first = network.follow()
    first.announce(announcement())
    own = wait_for(first, lambda s: s.own).own
    first.close()
    [key] = network.keys()
    written = network.written(key)
    second = network.follow()
    assert wait_for(second, lambda s: s.read_at).own == own
    second.announce(announcement())
    time.sleep(0.3)
    assert list(network.keys()) == [key]
    assert network.written(key) == written


def test_a_node_whose_lease_ran_out_gets_its_previous_subnet(network: Network) -> None:
    """The subnet of subnet.env is taken again if it is free and fits, else another is."""
    network.subnet(77, ONE)
    free = network.follow(previous=IPv4Network("10.42.66.0/24"))
    free.announce(announcement())
    own = wait_for(free, lambda s: s.own).own
    assert own is not None
    assert str(own.pod_cidr) == "10.42.66.0/24"
    for address, previous in (TWO, "10.42.77.0/24"), ("192.168.1.13", "10.99.1.0/24"):
        other = network.follow(address, previous=IPv4Network(previous))
        other.announce(announcement(address, f"12:00:00:00:00:{address[-2:]}"))
        own = wait_for(other, lambda s: s.own).own
        assert own is not None
        assert str(own.pod_cidr) != previous


def test_a_lease_is_renewed_before_its_end(network: Network) -> None:
    """A lease of four seconds is replaced two seconds before its end, and the key never goes."""
    source = network.follow(term=Term(ttl=4, margin=2))
    source.announce(announcement())
    wait_for(source, lambda s: s.own)
    [key] = network.keys()
    leases = {network.lease(key)}
    end = time.monotonic() + 5
    while time.monotonic() < end:
        leases.add(network.lease(key))
        time.sleep(0.1)
    assert len(leases) >= 2
    assert source.nodes().own
    assert not source.nodes().problems


def test_a_lease_in_its_last_second_has_none_left(network: Network) -> None:
    """The gateway leaves a 0 out of its answer."""
    gateway, left = Gateway(EtcdAccess((network.etcd.url,)), QUICK), set[int]()
    lease = gateway.grant(1)
    while -1 not in left:
        left.add(gateway.time_to_live(lease))
    assert 0 in left


def test_a_reservation_stays_one(network: Network) -> None:
    """A key that a person put without a lease gets our data and still has none."""
    network.subnet(42, OWN)
    source = network.follow()
    source.announce(announcement(mac="12:00:00:00:00:99"))
    wait_for(source, lambda s: s.own and s.own.vtep_mac == "12:00:00:00:00:99")
    assert list(network.keys()) == ["10.42.42.0-24"]
    assert network.lease("10.42.42.0-24") == 0


def test_a_deleted_key_is_reported_and_taken_again(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """When our own key is deleted the log says so, and the same subnet is ours again."""
    source = network.follow()
    source.announce(announcement())
    wait_for(source, lambda s: s.own)
    [key] = network.keys()
    network.delete(f"subnets/{key}")
    until(lambda: list(network.keys()) == [key])
    wait_for(source, lambda s: s.own and not s.problems)
    assert "is gone; taking it again" in caplog.text


def test_a_subnet_that_another_node_took_is_left_to_it(network: Network) -> None:
    """When our key says another address, that is a problem and nothing is overwritten."""
    source = network.follow()
    source.announce(announcement())
    wait_for(source, lambda s: s.own)
    [key] = network.keys()
    number = int(key.split(".")[2])
    network.subnet(number, TWO)
    snapshot = wait_for(source, lambda s: any("taken by" in p.reason for p in s.problems))
    assert TWO in snapshot.problems[-1].reason
    assert TWO in network.keys()[key]
    network.delete(f"subnets/{key}")
    wait_for(source, lambda s: s.own and not s.problems)


def test_nodes_that_start_together_get_different_subnets(network: Network) -> None:
    """Five nodes race for five subnets and each gets its own; a sixth is told there is none."""
    network.put("config", '{"Network":"10.42.0.0/24","SubnetLen":27,"SubnetMax":"10.42.0.160"}')
    addresses = [f"192.168.1.{number}" for number in range(50, 55)]
    sources = [network.follow(address) for address in addresses]
    for address, source in zip(addresses, sources, strict=True):
        source.announce(announcement(address, f"12:00:00:00:00:{address[-2:]}"))
    for source in sources:
        wait_for(source, lambda s: s.own)
    assert len(network.keys()) == 5
    late = network.follow("192.168.1.60")
    late.announce(announcement("192.168.1.60", "12:00:00:00:00:60"))
    snapshot = wait_for(late, lambda s: any("is free" in p.reason for p in s.problems))
    assert snapshot.own is None
