# SPDX-License-Identifier: Apache-2.0
"""Following subnets in a real etcd."""

import json
import re
import shutil
import time
import urllib.request
from base64 import b64encode
from contextlib import nullcontext
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from etcdnetwork import CONFIG, ONE, OWN, TWO, Network, announcement
from etcdserver import EtcdServer
from following import QUICK, peers, wait_for
from relay import Relay

from vxlane.agent.prepare import network_in_etcd
from vxlane.errors import SourceError
from vxlane.lab.waiting import wait_for as wait_until
from vxlane.sources.etcd.access import EtcdAccess
from vxlane.sources.etcd.gateway import Gateway
from vxlane.sources.etcd.source import network_config


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


def test_an_etcd_that_was_wiped_is_read_anew(tmp_path: Path) -> None:
    """It accepts a watch from a revision that it has yet to reach, and is silent until then."""
    etcd = EtcdServer(tmp_path).up()
    network = Network(etcd, "/wiped")
    try:
        for number in (10, 11, 11, 11):
            network.subnet(number, OWN if number == 10 else ONE)
        source = network.follow()
        wait_for(source, lambda s: peers(s) == {ONE})
        etcd.close()
        shutil.rmtree(tmp_path / "data")
        etcd.up()
        network.put("config", CONFIG)
        network.subnet(10, OWN)
        network.subnet(12, TWO)
        wait_for(source, lambda s: peers(s) == {TWO} and not s.error)
        network.subnet(11, ONE)
        wait_for(source, lambda s: peers(s) == {ONE, TWO})
    finally:
        for each in network.sources:
            each.close()
        etcd.close()


def test_a_half_open_watch_is_noticed(network: Network, relay: Relay) -> None:
    """A watch over which nothing comes any more is left for a new one after `silence`."""
    network.subnet(10, OWN)
    source = network.follow(access=EtcdAccess((relay.url,), network.prefix))
    network.subnet(12, TWO)
    wait_for(source, lambda s: peers(s) == {TWO})
    network.delete("subnets/10.42.12.0-24")
    wait_for(source, lambda s: not s.peers)  # told by the watch, which so is there
    relay.freeze()
    before = relay.accepted
    network.subnet(11, ONE)
    time.sleep(QUICK.silence / 2)
    assert relay.accepted == before
    wait_until(lambda: relay.accepted > before, "another connection")
    relay.thaw()
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
    """Without <prefix>/config nothing is read; once it is there all is."""
    network.delete("config")
    network.subnet(10, OWN)
    source = network.follow()
    assert f"{network.prefix}/config" in wait_for(source, lambda s: s.error).error
    with pytest.raises(SourceError, match=r"net-conf\.json"):
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


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "etcd has no key {key}; put flannel's net-conf.json there"),
        ("{", "etcd's {key} is not JSON"),
        ("[]", "etcd's {key} is not a JSON object"),
        ('{"Network":"10.42.0.0/33","Backend":{"Type":"vxlan"}}', "etcd's {key} Network"),
    ],
)
def test_a_config_that_is_missing_or_wrong_is_waited_for(
    network: Network, config: str | None, reason: str
) -> None:
    """No config, or garbage, is no end but something to wait for, and its key is named."""
    if config is None:
        network.delete("config")
    else:
        network.put("config", config)
    expected = re.escape(reason.format(key=f"{network.prefix}/config"))
    with pytest.raises(SourceError, match=expected):
        network_in_etcd(EtcdAccess((network.etcd.url,), network.prefix))


def test_a_config_that_becomes_right_is_taken(network: Network) -> None:
    """A source that began with garbage for a config says so, and serves once it is mended."""
    network.put("config", "garbage")
    network.subnet(10, OWN)
    source = network.follow()
    key = f"{network.prefix}/config"
    wait_for(source, lambda s: s.error.startswith(f"etcd's {key} is not JSON"))
    network.put("config", CONFIG)
    assert wait_for(source, lambda s: s.own).network == IPv4Network("10.42.0.0/16")


def test_what_holds_no_keys_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON of whatever answers in etcd's place does not say that all nodes are gone."""
    gateway = Gateway(EtcdAccess(("http://127.0.0.1:1",)), QUICK)
    monkeypatch.setattr(gateway, "_post", lambda *_, **__: nullcontext(iter([b"{}"])))
    with pytest.raises(SourceError, match="no list"):
        gateway.items("/x/")
