# SPDX-License-Identifier: Apache-2.0
"""The rules that keep the tunnel's packets out of conntrack: put, renewed, ended, removed."""

from __future__ import annotations

import contextlib
import json
import subprocess
from ipaddress import IPv4Address

import pytest
from reading import VIEW, found, sh

from vxlane.errors import KernelError, ToolError
from vxlane.host.events import RulesetEvents
from vxlane.host.notrack import Notrack, Tunnel
from vxlane.lab.waiting import wait_for

TUNNEL = Tunnel(VIEW.address, VIEW.port, 1, ("eth0", "eth1"))


def listed():
    """What nft lists of the table: by kind, and the set's elements."""
    text = subprocess.run(
        ["nft", "-j", "list", "table", "ip", "vxlane"], capture_output=True, text=True, check=False
    ).stdout
    parts = json.loads(text)["nftables"] if text else []
    held = [part["set"].get("elem", []) for part in parts if "set" in part]
    return [kind for part in parts for kind in part if kind != "metainfo"], held


@pytest.fixture
def rules(netns):
    """The rules of a bare namespace, which hold for a second."""
    assert netns
    with contextlib.closing(Notrack(lasts=1)) as made:
        yield made


def test_rules_end_by_themselves(rules):
    """Rules that nobody renews hold no longer; renewed ones do, also after they had ended."""
    rules.put(TUNNEL)
    assert listed()[1] == [[]]
    rules.renew(TUNNEL)
    kinds, (held,) = listed()
    assert kinds == ["table", "set", "chain", "chain", "rule", "rule"]
    assert [element["elem"]["val"] for element in held] == [VIEW.port]
    wait_for(lambda: listed()[1] == [[]], "the end of the rules")
    rules.renew(TUNNEL)
    assert len(listed()[1][0]) == 1


def test_rules_are_withdrawn_and_removed(rules):
    """A withdrawal lets none hold, and can be taken back; a removal leaves nothing."""
    rules.put(TUNNEL)
    rules.renew(TUNNEL)
    rules.withdraw()
    rules.withdraw()
    assert listed()[1] == [[]]
    rules.renew(TUNNEL)
    assert len(listed()[1][0]) == 1
    assert rules.remove()
    assert listed() == ([], [])
    assert not rules.remove()


def test_rules_that_are_gone_can_not_be_renewed(rules):
    """What others removed is a failure of that renewal, and is put again as a whole."""
    with pytest.raises(KernelError, match="No such file"):
        rules.renew(TUNNEL)
    rules.put(TUNNEL)
    rules.put(Tunnel(IPv4Address("192.168.7.9"), 4789, 2, ("eth0",)))
    listing = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    assert "192.168.7.9" in listing.stdout
    assert str(VIEW.address) not in listing.stdout


def test_what_nft_refuses(rules):
    """Words of nft's own are in the error."""
    with pytest.raises(ToolError, match=r"nft -f -: .*syntax error"):
        rules.put(Tunnel(VIEW.address, VIEW.port, 1, ()))


def test_they_concern_nobody(rules):
    """No event tells of these rules, and the walk finds that no packet of a pod meets them."""
    with contextlib.closing(RulesetEvents()) as events:
        rules.put(TUNNEL)
        rules.renew(TUNNEL)
        rules.withdraw()
        assert events.read() is None
        sh("nft", "add table inet vxlane; add table ip vxlane-too")
        change = events.read()
        assert change
        assert change.names == {(1, "vxlane", ""), (2, "vxlane-too", "")}
        assert found() == ()
        rules.remove()
        assert events.read() is None
