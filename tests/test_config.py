# SPDX-License-Identifier: Apache-2.0
"""net-conf.json, read."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from vxlane.agent.prepare import prepare
from vxlane.cli.agent import agent
from vxlane.config import Network, parse_network, read_network
from vxlane.errors import ConfigError, OptionError

NETWORK = IPv4Network("10.42.0.0/16")


def test_net_conf_keys_in_any_case() -> None:
    """Keys of net-conf.json count whatever their case, unknown ones do not count."""
    text = """{"NETWORK": "10.42.0.0/16", "enableNFTables": true, "Extra": 1,
               "backend": {"TYPE": "VXLAN", "vni": 7, "Directrouting": true, "PORT": 4789}}"""
    assert parse_network(text) == Network(
        cidr=NETWORK, vni=7, port=4789, routes_directly=True, uses_nftables=True
    )
    assert parse_network('{"Backend": {"Type": "vxlan"}}') == Network()


@pytest.mark.parametrize(
    ("members", "is_so"),
    [
        ("", True),
        ('"EnableIPv6": false,', True),
        ('"EnableIPv6": true,', False),
        ('"EnableIPv4": false, "enableipv6": true,', False),
        ('"EnableIPv4": false,', False),
    ],
)
def test_whether_pods_have_ipv4_alone(members: str, is_so: bool) -> None:  # noqa: FBT001
    """EnableIPv4 is on by default, EnableIPv6 off, as flannel has it."""
    text = f'{{{members} "Backend": {{"Type": "vxlan"}}}}'
    assert parse_network(text).is_ipv4_alone == is_so


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"Network": "10.42.0.1/16", "Backend": {"Type": "vxlan"}}', "Network '10.42.0.1/16'"),
        ('{"Network": "10.42.0.0/16"}', 'has no Backend.Type, .* write "Backend": {"Type": "vxl'),
        ('{"Backend": {"VNI": 7}}', "has no Backend.Type"),
        ('{"Backend": {"Type": "wireguard"}}', "known: vxlan, host-gw|vxlane's: vxlan, host-gw"),
        ('{"Backend": {"Type": "vxlan", "VNI": "1"}}', "vni must be a number"),
        ('{"Backend": {"Type": "vxlan", "GBP": 1}}', "gbp must be true or false"),
    ],
)
def test_a_wrong_net_conf_is_refused(text: str, reason: str) -> None:
    """What can't be in a net-conf.json is named."""
    with pytest.raises(ConfigError, match=reason):
        parse_network(text)


def test_a_net_conf_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """It is named, as every other that is not JSON."""
    file = tmp_path / "net-conf.json"
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(ConfigError, match=r"net-conf.json: is not JSON: .*; put flannel's"):
        read_network(file)


def test_a_net_conf_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The advice is right for a path that was given, and for the usual one."""
    advice = "No such file or directory; give --net-config-path a file that can be read$"
    with pytest.raises(ConfigError, match=rf"net-conf\.json: {advice}"):
        read_network(tmp_path / "net-conf.json")


MISSPELT = '{"Netwrk": "10.42.0.0/16", "Backend": {"Type": "vxlan", "Prt": 1}}'
WARNING = ": flannel has no Netwrk, Backend.Prt; that is ignored, check how it is spelt"


def test_a_key_that_flannel_has_not_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts for nothing, and only the log says so: flannel takes such a file."""
    file = tmp_path / "net-conf.json"
    file.write_text(MISSPELT)
    assert read_network(file) == Network()
    assert caplog.messages == [f"{file}{WARNING}"]


def test_a_key_of_flannels_is_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever its case, whether vxlane reads it or not."""
    file = tmp_path / "net-conf.json"
    backend = {"type": "vxlan", "VNI": 4096, "Port": 4789, "MacPrefix": "0E-2A", "Name": "x"}
    known = {"NETWORK": "10.42.0.0/16", "SubnetLen": 24, "IPv6Network": "fd00::/48"}
    file.write_text(json.dumps(known | {"enableNFTables": True, "backend": backend}))
    assert read_network(file).vni == 4096
    assert caplog.messages == []


@pytest.mark.usefixtures("_machine")
def test_a_key_in_etcd_that_flannel_has_not_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of a file is, by the name of the key that holds the configuration."""
    monkeypatch.setattr("vxlane.agent.prepare.network_in_etcd", lambda _: MISSPELT)
    options = ["--etcd-endpoints", "http://192.0.2.1", "--iface", "127.0.0.1"]
    prepare(agent.make_context("agent", [*options, "--state-dir", str(tmp_path)]).params)
    assert f"etcd's /coreos.com/network/config{WARNING}" in caplog.messages


@pytest.mark.parametrize(("mode", "default"), [("own", True), ("adopt", False)])
def test_tunnels_are_tracked_beside_flanneld(mode: str, default: bool) -> None:  # noqa: FBT001
    """In mode own they are not, unless it is asked: there the node's rules are vxlane's to make."""
    for switch, untracks in (([], default), (["--notrack"], True), (["--no-notrack"], False)):
        arguments = [*switch, "--mode", mode, "--nodes-file", "nodes.yaml"]
        config, _ = prepare(agent.make_context("agent", arguments).params)
        assert config.untracks == untracks


@pytest.mark.parametrize("other", ["--kube-subnet-mgr", "--etcd-endpoints=http://192.0.2.1"])
def test_two_sources_of_nodes_are_refused(other: str) -> None:
    """One of them would be overlooked."""
    arguments = ["--nodes-file", "nodes.yaml", other]
    with pytest.raises(OptionError, match=f"give --nodes-file or {other.partition('=')[0]}"):
        prepare(agent.make_context("agent", arguments).params)


def test_etcd_beside_kubernetes_is_overlooked_as_in_flanneld(tmp_path: Path) -> None:
    """A node may have FLANNELD_ETCD_ENDPOINTS from the days before it."""
    url = "http://192.0.2.1"
    kubernetes = ["--kube-subnet-mgr", "--kube-api-url", url, "--node-name", "x"]
    places = ["--mode", "adopt", "--state-dir", str(tmp_path)]
    arguments = [*kubernetes, *places, "--etcd-endpoints", url]
    config, _ = prepare(agent.make_context("agent", arguments).params)
    assert config.origin.startswith("kubernetes ")
