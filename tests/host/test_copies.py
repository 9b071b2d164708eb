# SPDX-License-Identifier: Apache-2.0
"""The rule that ends the way of the copies for conntrack: put, put again, removed, refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from vxlane.host import own_tables
from vxlane.host.copies import CopyRule
from vxlane.host.events import RulesetEvents
from vxlane.host.undo import UndoFile
from vxlane.netlink import nfnetlink as nf


def rules() -> list[str]:
    """The ruleset's rules, as nft prints them."""
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    return [line.strip() for line in listed.stdout.splitlines() if line.endswith("drop")]


DROPS = ["meta pkttype multicast ether daddr 03:78:6c:61:6e:65 drop"]


@pytest.mark.usefixtures("netns")
def test_it_is_put_and_removed(tmp_path: Path) -> None:
    """It is there once, also for the next agent, and comes back when others have flushed it."""
    undo = UndoFile(tmp_path)
    events = RulesetEvents()
    for noted in (undo, UndoFile(tmp_path / "of the next")):
        for _ in range(2):
            CopyRule(noted).ensure()
            assert rules() == DROPS
        assert noted.known.copies == own_tables.COPIES
    assert own_tables.remove(own_tables.COPIES)
    assert rules() == []
    assert not own_tables.remove(own_tables.COPIES)
    CopyRule(undo).ensure()
    assert rules() == DROPS
    subprocess.run(["nft", "flush", "table", "ip", own_tables.COPIES], check=True)
    CopyRule(undo).ensure()
    assert rules() == DROPS
    assert events.read() is None, "no approval is withdrawn for it"
    events.close()


@pytest.mark.usefixtures("netns")
def test_a_kernel_without_nftables_has_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction is refused as by conntrack's subsystem, which knows none either."""
    monkeypatch.setattr(nf, "NFNL_SUBSYS_NFTABLES", 1)
    assert not own_tables.remove(own_tables.COPIES)


@pytest.mark.usefixtures("netns")
def test_it_stands_behind_conntrack(tmp_path: Path) -> None:
    """Conntrack's priority is -200."""
    CopyRule(UndoFile(tmp_path)).ensure()
    shown = ["nft", "-j", "list", "table", "ip", own_tables.COPIES]
    parts = json.loads(subprocess.run(shown, capture_output=True, check=True).stdout)["nftables"]
    (chain,) = (part["chain"] for part in parts if "chain" in part)
    assert (chain["hook"], chain["prio"]) == ("prerouting", -199)


@pytest.mark.usefixtures("netns")
def test_without_nft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, and nothing fails: copies go further."""
    monkeypatch.setenv("PATH", str(tmp_path))
    rule = CopyRule(UndoFile(tmp_path))
    with caplog.at_level("INFO"):
        rule.ensure()
        rule.ensure()
    assert [record.getMessage() for record in caplog.records] == [
        "the copies for conntrack go further than they need: nft is not installed; install it"
    ]
