# SPDX-License-Identifier: Apache-2.0
"""When the tunnel's packets are kept out of conntrack, and what is said when they are not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import overlaystate
import pytest

from vxlane.config import Config
from vxlane.datapath.abi import Way
from vxlane.errors import KernelError, ToolError
from vxlane.host.undo import UndoFile
from vxlane.overlay import notrack
from vxlane.overlay.notrack import NotrackKeeper

OVERLAY = replace(overlaystate.OVERLAY, underlay=1, exits=frozenset({(Way.TUNNEL, 1)}))
MOVED = replace(OVERLAY, address=IPv4Address("192.168.77.2"))


JUST = "the node's rules have just changed, or are not read yet"


class Rules:
    """Rules that write down what is done to them, and fail as a test says."""

    def __init__(self):
        self.done = []
        self.failing = {}

    def __getattr__(self, call):
        """Any call; only its name and the tunnel's address are noted."""

        def note(*tunnel):
            self.done.append(" ".join([call, *(str(one.address) for one in tunnel)]))
            if call in self.failing:
                raise self.failing[call]
            return True

        return note

    def take(self):
        """What was done since the last time."""
        done, self.done = self.done, []
        return done


@pytest.fixture
def rules(monkeypatch):
    """The rules of every keeper."""
    made = Rules()
    monkeypatch.setattr(notrack, "Notrack", lambda: made)
    return made


@pytest.fixture
def make(tmp_path, rules):
    """Make a keeper in the state directory of the one before."""
    assert rules
    return lambda **config: NotrackKeeper(Config("n", tmp_path, **config), UndoFile(tmp_path))


def test_rules_hold_while_nothing_hinders(make, rules):
    """They are put once, withdrawn at once and renewed, and another address replaces them."""
    keeper = make(untracks=True)
    keeper.reconcile(OVERLAY, None)
    assert (rules.take(), keeper.state) == (
        [],
        JUST,
    )
    keeper.reconcile(OVERLAY, ())
    assert (rules.take(), keeper.state) == (["put 192.168.77.1"], JUST)
    for _ in range(2):
        keeper.reconcile(OVERLAY, ())
    assert (rules.take(), keeper.state) == (["renew 192.168.77.1"], "on")
    keeper.renew()
    keeper.reconcile(OVERLAY, None)
    keeper.reconcile(OVERLAY, ("nft ip filter INPUT",))
    assert keeper.state == "conntrack may decide about them: nft ip filter INPUT"
    keeper.renew()
    assert rules.take() == ["renew 192.168.77.1", "withdraw"]
    keeper.reconcile(OVERLAY, ())
    keeper.reconcile(MOVED, ())
    keeper.close()
    assert rules.take() == ["renew 192.168.77.1", "put 192.168.77.2", "remove", "close"]


@pytest.mark.parametrize("overlay", [None, replace(OVERLAY, device=0)])
def test_without_a_tunnel_there_is_no_rule(make, rules, overlay):
    """host-gw, or an overlay that is not made yet, needs none; those that were there end."""
    keeper = make(untracks=True)
    for _ in range(2):
        keeper.reconcile(OVERLAY, ())
    keeper.reconcile(overlay, ())
    assert rules.take() == ["put 192.168.77.1", "renew 192.168.77.1", "withdraw"]
    assert keeper.state == "there is no tunnel"


def test_what_a_killed_agent_left_ends_first(make, rules):
    """Before the rules of the node are read, and for good where the switch is off now."""
    make(untracks=True).reconcile(OVERLAY, ())
    rules.take()
    make(untracks=True).reconcile(None, None)
    assert rules.take() == ["withdraw"]
    keeper = make()
    keeper.reconcile(OVERLAY, ())
    keeper.reconcile(OVERLAY, ())
    assert (rules.take(), keeper.state) == (["remove"], "off")
    make().close()
    assert rules.take() == ["close"]


def test_rules_that_others_removed_come_back(make, rules):
    """With the next renewal, as a whole."""
    keeper = make(untracks=True)
    for _ in range(2):
        keeper.reconcile(OVERLAY, ())
    rules.take()
    rules.failing["renew"] = KernelError("renew", 2)
    keeper.renew()
    assert rules.take() == ["renew 192.168.77.1", "put 192.168.77.1"]
    rules.failing = {"withdraw": KernelError("withdraw", 2)}
    keeper.reconcile(OVERLAY, ())
    keeper.reconcile(OVERLAY, None)
    keeper.reconcile(OVERLAY, ())
    assert rules.take() == ["renew 192.168.77.1", "withdraw", "put 192.168.77.1"]


def test_without_nft_it_is_told_once(make, rules, caplog):
    """No failure: one line in the log, the reason in `vxlane status`, and another try later."""
    caplog.set_level("INFO")
    keeper = make(untracks=True)
    rules.failing["put"] = ToolError("nft is not installed; install it")
    for _ in range(2):
        for _ in range(3):
            keeper.reconcile(OVERLAY, ())
        keeper.renew()
    assert rules.take() == ["put 192.168.77.1", "put 192.168.77.1"]
    assert keeper.state == "nft is not installed; install it"
    assert [line for line in caplog.messages if "nft" in line] == [
        "tunnel packets kept out of conntrack: nft is not installed; install it"
    ]
