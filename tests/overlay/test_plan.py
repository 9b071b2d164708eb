# SPDX-License-Identifier: Apache-2.0
"""What of the kernel path mode own makes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from vxlane.config import Config
from vxlane.host.firewall import Forward, Masquerade, Policy
from vxlane.overlay.plan import Plan, plan_for
from vxlane.sources.model import Node
from vxlane.util.dirty import ALL, Dirty

NETWORK = IPv4Network("10.42.0.0/16")
OWN = Node("node1", IPv4Address("192.168.77.1"), IPv4Network("10.42.1.0/24"), "02:00:00:00:00:01")
CONFIG = Config("node1", Path("/nowhere"), masquerade=Masquerade.ON, has_blackhole=True)


def plan(config: Config, dirty: Dirty) -> Plan:
    """The plan without peers."""
    return plan_for(config, OWN, NETWORK, paths=(), mtu=1450, dirty=dirty)


def test_all_is_planned_when_all_is_dirty() -> None:
    """Rules, blackhole and subnet.env speak of this node's pods and of the network of all."""
    found = plan(CONFIG, ALL)
    assert found.policy == Policy(NETWORK, OWN.pod_cidr, Masquerade.ON, Forward.ACCEPT)
    assert found.blackhole == OWN.pod_cidr
    assert str(found.subnet_env).splitlines() == [
        "FLANNEL_NETWORK=10.42.0.0/16",
        "FLANNEL_SUBNET=10.42.1.1/24",
        "FLANNEL_MTU=1450",
        "FLANNEL_IPMASQ=true",
    ]


def test_rules_are_compared_only_when_they_may_have_changed() -> None:
    """A change of nodes leaves rules and blackhole out, and never subnet.env."""
    found = plan(CONFIG, Dirty.NODES)
    assert (found.policy, found.blackhole) == (None, None)
    assert found.subnet_env.subnet == OWN.pod_cidr


def test_no_blackhole_unless_asked() -> None:
    """Without --ip-blackhole-route there is none, whatever changed."""
    assert plan(Config("node1", Path("/nowhere")), ALL).blackhole is None
