"""Following and holding subnets in a real etcd."""

import json
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from etcdserver import EtcdServer
from following import QUICK, peers, until, wait_for
from relay import Relay

from vxlane.loader.errors import ConfigError
from vxlane.loader.nodes.etcd.access import EtcdAccess
from vxlane.loader.nodes.etcd.keeper import Term
from vxlane.loader.nodes.etcd.source import EtcdSource, network_config
from vxlane.loader.nodes.model import Announcement, Backend

OWN, ONE, TWO = "192.168.1.10", "192.168.1.11", "192.168.1.12"
CONFIG = '{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}'


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """One etcd for all tests of this file."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd")).up()
    yield server
    server.close()


class Network:
    """A prefix of its own in etcd, with flannel's config, and sources that follow it."""

    def __init__(self, etcd: EtcdServer, prefix: str) -> None:
        self.etcd = etcd
        self.prefix = prefix
        self.sources: list[EtcdSource] = []
        self.put("config", CONFIG)

    def follow(self, own: str = OWN, **options: Any) -> EtcdSource:
        """A started source for the node with address `own`."""
        options = {"timing": QUICK, **options}
        access = options.pop("access", EtcdAccess((self.etcd.url,), self.prefix))
        source = EtcdSource(access, IPv4Address(own), **options)
        self.sources.append(source)
        source.start()
        return source

    def put(self, key: str, value: str, *options: str) -> None:
        """Write a key of this network."""
        self.etcd.ctl("put", *options, f"{self.prefix}/{key}", value)

    def subnet(self, number: int, address: str, **attributes: Any) -> None:
        """The key of a node as flannel writes it."""
        data = {"VNI": 1, "VtepMAC": f"0e:00:00:00:00:{number:02x}"}
        value = {"PublicIP": address, "PublicIPv6": None, "BackendType": "vxlan"}
        text = json.dumps({**value, "BackendData": data, **attributes})
        self.put(f"subnets/10.42.{number}.0-24", text)

    def delete(self, key: str) -> None:
        """Delete a key of this network."""
        self.etcd.ctl("del", f"{self.prefix}/{key}")

    def keys(self) -> dict[str, str]:
        """The last part of each subnet's key, and its value."""
        lines = self.etcd.ctl("get", "--prefix", f"{self.prefix}/subnets/").splitlines()
        names = [line.rpartition("/")[2] for line in lines[::2]]
        return dict(zip(names, lines[1::2], strict=True))

    def lease(self, key: str) -> int:
        """The lease of a subnet's key."""
        found = self.etcd.ctl("get", f"{self.prefix}/subnets/{key}", "-w", "json")
        lease: int = json.loads(found)["kvs"][0].get("lease", 0)
        return lease


@pytest.fixture
def network(etcd: EtcdServer, request: pytest.FixtureRequest) -> Iterator[Network]:
    """A network of this test's own, on an etcd that is up."""
    made = Network(etcd, f"/test/{request.node.name}")
    yield made
    for source in made.sources:
        source.close()
    etcd.up()


@pytest.fixture
def relay(etcd: EtcdServer) -> Iterator[Relay]:
    """A way to etcd that can be shut."""
    made = Relay(etcd.url)
    yield made
    made.close()


def announcement(address: str = OWN, mac: str = "12:c6:65:89:b4:e3") -> Announcement:
    """What a node says."""
    return Announcement(IPv4Address(address), Backend.VXLAN, 1, mac)


def test_all_subnets_are_nodes_named_by_their_address(network: Network) -> None:
    """PublicIP, key and BackendData make a node; the config's Network comes with them."""
    network.subnet(10, OWN)
    network.subnet(11, ONE)
    snapshot = wait_for(network.follow(), lambda s: s.read_at)
    assert snapshot.network == IPv4Network("10.42.0.0/16")
    assert snapshot.own is not None
    assert str(snapshot.own.pod_cidr) == "10.42.10.0/24"
    assert not snapshot.problems
    [peer] = snapshot.peers
    assert (peer.name, peer.vtep_mac) == (ONE, "0e:00:00:00:00:0b")


def test_changes_arrive(network: Network) -> None:
    """A subnet that is put, changed or deleted is seen as such."""
    network.subnet(10, OWN)
    source = network.follow()
    wait_for(source, lambda s: s.own)
    network.subnet(11, ONE)
    wait_for(source, lambda s: peers(s) == {ONE})
    network.subnet(11, TWO)
    wait_for(source, lambda s: peers(s) == {TWO})
    network.delete("subnets/10.42.11.0-24")
    wait_for(source, lambda s: not s.peers)


def test_a_restarted_etcd_loses_nothing(network: Network) -> None:
    """While etcd is down the set stays and the error says why; changes after it come through."""
    network.subnet(10, OWN)
    network.subnet(11, ONE)
    source = network.follow()
    wait_for(source, lambda s: peers(s) == {ONE})
    network.etcd.close()
    snapshot = wait_for(source, lambda s: "refused" in s.error)
    assert peers(snapshot) == {ONE}
    network.etcd.up()
    network.delete("subnets/10.42.11.0-24")
    network.subnet(12, TWO)
    wait_for(source, lambda s: peers(s) == {TWO} and not s.error)


def test_deletions_before_a_compaction_are_not_lost(network: Network, relay: Relay) -> None:
    """When the revision to resume from is compacted away, all is read and what is gone goes."""
    network.subnet(10, OWN)
    network.subnet(11, ONE)
    source = network.follow(access=EtcdAccess((relay.url,), network.prefix))
    wait_for(source, lambda s: peers(s) == {ONE})
    relay.shut()
    wait_for(source, lambda s: s.error)
    network.delete("subnets/10.42.11.0-24")
    network.subnet(12, TWO)
    status = json.loads(network.etcd.ctl("endpoint", "status", "-w", "json"))
    network.etcd.ctl("compact", str(status[0]["Status"]["header"]["revision"]))
    relay.reopen()
    wait_for(source, lambda s: peers(s) == {TWO} and not s.error)


def test_a_half_open_watch_is_noticed(network: Network, relay: Relay) -> None:
    """A watch over which nothing comes any more is left for a new one after `silence`."""
    network.subnet(10, OWN)
    source = network.follow(access=EtcdAccess((relay.url,), network.prefix))
    wait_for(source, lambda s: s.own)
    relay.freeze()
    network.subnet(11, ONE)
    time.sleep(QUICK.silence / 2)
    assert not source.nodes().peers
    threading.Timer(QUICK.silence, relay.thaw).start()
    wait_for(source, lambda s: peers(s) == {ONE} and not s.error)


def test_a_silent_watch_is_resumed(network: Network) -> None:
    """After `silence` without an event the watch is opened anew, and no error is shown."""
    network.subnet(10, OWN)
    source = network.follow()
    wait_for(source, lambda s: s.own)
    end = time.monotonic() + 2.5 * QUICK.silence
    while time.monotonic() < end:
        assert not source.nodes().error
        time.sleep(0.01)
    network.subnet(11, ONE)
    wait_for(source, lambda s: peers(s) == {ONE})


def test_etcd_that_is_down_for_the_whole_start(network: Network) -> None:
    """A source starts without etcd, and has all once there is one, also at its second endpoint."""
    network.subnet(10, OWN)
    network.etcd.close()
    endpoints = ("http://127.0.0.1:1", network.etcd.url)
    source = network.follow(access=EtcdAccess(endpoints, network.prefix))
    assert wait_for(source, lambda s: s.error).read_at is None
    network.etcd.up()
    wait_for(source, lambda s: s.own and not s.error)


def test_garbage_is_reported_by_key_and_the_rest_works(network: Network) -> None:
    """Values and keys that make no node are problems that name the key."""
    network.subnet(10, OWN)
    network.subnet(11, ONE)
    network.put("subnets/10.42.12.0-24", "{")
    network.put("subnets/10.42.13.0-24", '{"PublicIP":"nowhere","BackendType":"vxlan"}')
    network.put("subnets/10.42.14-24", '{"PublicIP":"192.168.1.14","BackendType":"host-gw"}')
    network.subnet(15, "192.168.1.15", BackendData=None)
    snapshot = wait_for(network.follow(), lambda s: s.read_at)
    assert peers(snapshot) == {ONE}
    assert {problem.node for problem in snapshot.problems} == {
        "10.42.12.0-24",
        "10.42.13.0-24",
        "10.42.14-24",
        "10.42.15.0-24",
    }


def test_a_missing_config_is_an_error_that_names_the_key(network: Network) -> None:
    """Without <prefix>/config nothing is read; once somebody puts it there all is."""
    network.delete("config")
    network.subnet(10, OWN)
    source = network.follow()
    assert f"{network.prefix}/config" in wait_for(source, lambda s: s.error).error
    with pytest.raises(ConfigError, match=r"net-conf\.json"):
        network_config(EtcdAccess((network.etcd.url,), network.prefix), timing=QUICK)
    network.put("config", CONFIG)
    wait_for(source, lambda s: s.own and not s.error)
    access = EtcdAccess((network.etcd.url,), network.prefix)
    assert network_config(access, timing=QUICK) == CONFIG


def test_ten_thousand_subnets_are_read(network: Network) -> None:
    """A full read of a large network arrives whole."""
    puts = []
    for number in range(10_000):
        third, fourth = divmod(number, 256)
        key = f"{network.prefix}/subnets/10.{64 + third}.{fourth}.0-24"
        value = f'{{"PublicIP":"172.16.{third}.{fourth}","BackendType":"host-gw"}}'
        coded = {"key": b64encode(key.encode()), "value": b64encode(value.encode())}
        puts.append({"request_put": {name: text.decode() for name, text in coded.items()}})
    for start in range(0, len(puts), 100):
        body = json.dumps({"success": puts[start : start + 100]}).encode()
        urllib.request.urlopen(f"{network.etcd.url}/v3/kv/txn", body).read()
    snapshot = wait_for(network.follow(), lambda s: s.read_at, within=20)
    assert len(snapshot.peers) == 10_000


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
    lease = network.lease(key)
    second = network.follow()
    assert wait_for(second, lambda s: s.read_at).own == own
    second.announce(announcement())
    time.sleep(0.3)
    assert list(network.keys()) == [key]
    assert network.lease(key) == lease


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
    assert "was deleted or ran out" in caplog.text


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


def test_a_source_closes_at_once(network: Network) -> None:
    """close() returns in a moment although the watch has nothing to say; the lease stays."""
    source = network.follow()
    source.announce(announcement())
    wait_for(source, lambda s: s.own)
    began = time.monotonic()
    source.close()
    source.close()
    assert time.monotonic() - began < 0.3
    assert len(network.keys()) == 1
