# SPDX-License-Identifier: Apache-2.0
"""Rules that name a device by its number, which may be another device's later."""

from __future__ import annotations

import contextlib
import select

import pytest
from reading import VIEW, sh

from vxlane.mechanisms.devices import Devices
from vxlane.mechanisms.ipvs import IpvsReader
from vxlane.mechanisms.nft_reader import NftReader
from vxlane.mechanisms.rules import ChainKey, Family
from vxlane.mechanisms.watcher import Question, Watcher

QUESTION = Question(VIEW, Devices((), ()))
NUMBER = "77"
"""Of the device that the rules name."""
TABLE = """
add table ip t
add chain ip t c { type filter hook forward priority 0; }
add chain ip t by-name { type filter hook forward priority 1; }
add chain ip t deep
add rule ip t deep log
add set ip t s { type iface_index; flags constant; elements = { some0 }; }
add rule ip t by-name iifname some0 ip saddr 10.43.0.0/16 log
add rule ip t c
"""
RULES = (
    "iif some0 log",
    "oif some0 log",
    "iif { lo, some0 } log",
    "oif @s log",
    "iif vmap { lo : accept, some0 : jump deep }",
    "meta iif some0 ip saddr 10.42.1.5 log",
    "meta oif some0 jump deep",
)


class NoDevices:
    """What stands for a DeviceReader."""

    def findings(self, devices):
        """See DeviceReader."""
        assert devices == QUESTION.devices
        return ()


@pytest.fixture
def some(netns):
    """A device with the number that the rules name."""
    assert netns
    add("some0")


def add(name):
    """Make the device that has the number."""
    sh("ip", "link", "add", name, "index", NUMBER, "type", "veth", "peer", "name", "peer0")


@pytest.fixture
def watcher(some, tmp_path):
    """A watcher of the namespace."""
    assert some is None
    with contextlib.closing(Watcher(NoDevices(), IpvsReader(tmp_path / "ip_vs"))) as made:
        yield made


def put(rule):
    """Make a table with one rule in its first chain."""
    sh("nft", "-f", "-", stdin=TABLE.rstrip() + f" {rule}\n")


def kinds(watcher, *asked):
    """What is found when everything is asked for."""
    watcher.request(*asked)
    assert select.select([watcher.fileno()], [], [], 5)[0]
    return {found.kind.value for found in watcher.take().found}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("asked", [(), (QUESTION,)])
def test_a_device_gets_another_name(watcher, rule, asked):
    """A rule about a device counts as soon as this is the pods' bridge, and no longer than that."""
    put(rule)
    assert kinds(watcher, QUESTION) == set()
    sh("ip", "link", "set", "some0", "name", "cni0")
    assert kinds(watcher, *asked) == {"log"}
    sh("ip", "link", "set", "cni0", "name", "some0")
    assert kinds(watcher, *asked) == set()


@pytest.mark.parametrize("rule", RULES)
def test_a_number_gets_another_device(watcher, rule):
    """A rule names a number, and the device that has it may be removed and another one made."""
    put(rule)
    assert kinds(watcher, QUESTION) == set()
    sh("ip", "link", "del", "some0")
    assert kinds(watcher) == set()
    add("flannel.1")
    assert kinds(watcher) == {"log"}


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize("rule", RULES)
def test_only_rules_that_name_a_number_are_read_again(rule):
    """Beside thousands of Services all other chains are too many to be read every 30 s."""
    put(rule)
    by_number, by_name = (ChainKey(Family.IP, "t", chain) for chain in ("c", "by-name"))
    with contextlib.closing(NftReader()) as reader:
        before = reader.rules(by_number), reader.rules(by_name)
        reader.forget_devices()
        assert reader.rules(by_name) is before[1]
        assert reader.rules(by_number) is not before[0]
        assert reader.rules(by_number) == before[0]
