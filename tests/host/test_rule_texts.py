# SPDX-License-Identifier: Apache-2.0
"""flannel's rules as text, and what the tools are told to make of what they list."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from vxlane.errors import ToolError
from vxlane.host import firewall
from vxlane.host.firewall import Forward, Masquerade, Policy
from vxlane.host.iptables import Chain, Iptables, chains
from vxlane.host.nftables import Nftables, table

POLICY = Policy(
    IPv4Network("10.42.0.0/16"),
    IPv4Network("10.42.66.0/24"),
    Masquerade.FULLY_RANDOM,
    Forward.ACCEPT,
)
NOTHING = dataclasses.replace(POLICY, masquerade=Masquerade.OFF, forward=Forward.OFF)

MASQ = '-m comment --comment "flanneld masq" -j'
POSTROUTING = f"""\
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {MASQ} RETURN
-A FLANNEL-POSTRTG -s 10.42.66.0/24 -d 10.42.0.0/16 {MASQ} RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.66.0/24 {MASQ} RETURN
-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.66.0/24 {MASQ} RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 {MASQ} MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.0.0/16 {MASQ} MASQUERADE --random-fully
"""
FWD = '-m comment --comment "flanneld forward" -j ACCEPT'
FORWARD = f"""\
-A FLANNEL-FWD -s 10.42.0.0/16 {FWD}
-A FLANNEL-FWD -d 10.42.0.0/16 {FWD}
"""
JUMP = '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG'
TABLE = """\
table ip flannel-ipv4 {
	chain postrtg {
	type nat hook postrouting priority srcnat; policy accept;
	meta mark & 0x4000 == 0x4000 return
	ip saddr 10.42.66.0/24 ip daddr 10.42.0.0/16 return
	ip saddr 10.42.0.0/16 ip daddr 10.42.66.0/24 return
	ip saddr != 10.42.0.0/16 ip daddr 10.42.66.0/24 return
	ip saddr 10.42.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
	ip saddr != 10.42.0.0/16 ip daddr 10.42.0.0/16 masquerade fully-random
	}
	chain forward {
	type filter hook forward priority filter; policy accept;
	ip saddr 10.42.0.0/16 accept
	ip daddr 10.42.0.0/16 accept
	}
}
"""


def test_chains_are_flannels() -> None:
    """Rule by rule in the form in which `iptables -S` shows them."""
    postrouting, forward = chains(POLICY)
    assert "\n".join((*postrouting.rules, "")) == POSTROUTING
    assert "\n".join((*forward.rules, "")) == FORWARD
    assert (postrouting.table, postrouting.jump) == ("nat", JUMP)
    assert (forward.table, forward.parent) == ("filter", "FORWARD")


def test_the_table_is_flannels() -> None:
    """The same rules for nft."""
    assert table(POLICY) == TABLE


def test_masquerading_may_keep_ports_or_be_off() -> None:
    """Without random ports the rules say nothing of them; what is off has no rules."""
    plain = dataclasses.replace(POLICY, masquerade=Masquerade.ON)
    assert "\n".join((*chains(plain)[0].rules, "")) == POSTROUTING.replace(" --random-fully", "")
    assert table(plain) == TABLE.replace(" fully-random", "")
    assert [chain.rules for chain in chains(NOTHING)] == [(), ()]
    assert table(NOTHING) == "table ip flannel-ipv4 {\n}\n"


class Tools:
    """Executables in the place of iptables, iptables-restore and nft.

    `lists` is what the next listings print, by the last word of the command; what is told by
    standard input is kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for name in ("iptables", "iptables-restore", "nft"):
            tool = directory / name
            tool.write_text(
                "#!/bin/sh\n"
                f'cd {directory}; for word; do :; done; echo "${{0##*/}} $*" >>calls\n'
                f'case "$0 $*" in *-restore*|*"-f -") cat >>told; exit;; *delete*) exit;; esac\n'
                '[ -e "list-$word" ] && exec cat "list-$word"; echo no such >&2; exit 1\n'
            )
            tool.chmod(0o755)

    def lists(self, **listings: str) -> None:
        """A chain of dashes is given with underscores."""
        for name, text in listings.items():
            (self._directory / f"list-{name.replace('_', '-')}").write_text(text)

    def calls(self) -> list[str]:
        """The command lines so far."""
        return (self._directory / "calls").read_text().splitlines()

    def told(self) -> str:
        """What was told since the last call."""
        file = self._directory / "told"
        text = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        return text


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    """Tools that know no rules."""
    made = Tools(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return made


MASQUERADED = dataclasses.replace(POLICY, forward=Forward.OFF)
LISTED = "-N FLANNEL-POSTRTG\n" + POSTROUTING


def test_a_chain_that_is_missing_is_made_with_its_jump(tools: Tools) -> None:
    """All of it in one transaction; nothing is removed that is not there."""
    assert Iptables().ensure(MASQUERADED) == [
        "put iptables chain FLANNEL-POSTRTG of table nat: missing"
    ]
    assert tools.told() == f"*nat\n:FLANNEL-POSTRTG -\n{POSTROUTING}{JUMP}\nCOMMIT\n"


def test_a_chain_that_is_right_is_left_alone(tools: Tools) -> None:
    """Its rules in their order and one jump to it, among other people's."""
    tools.lists(FLANNEL_POSTRTG=LISTED, POSTROUTING=f"-P POSTROUTING ACCEPT\n-A X\n{JUMP}\n")
    assert Iptables().ensure(MASQUERADED) == []
    assert tools.told() == ""


def test_rules_that_differ_are_replaced_and_the_jump_stays(tools: Tools) -> None:
    """The chain is emptied and filled in the same transaction."""
    tools.lists(FLANNEL_POSTRTG=LISTED.replace("10.42.", "10.43."), POSTROUTING=JUMP)
    assert Iptables().ensure(MASQUERADED) == [
        "put iptables chain FLANNEL-POSTRTG of table nat: its rules differed"
    ]
    assert tools.told() == f"*nat\n:FLANNEL-POSTRTG -\n{POSTROUTING}COMMIT\n"


def test_two_jumps_become_one(tools: Tools) -> None:
    """Both are taken away and one is made, in the same transaction as the rules."""
    tools.lists(FLANNEL_POSTRTG=LISTED, POSTROUTING=f"{JUMP}\n{JUMP}\n")
    assert Iptables().ensure(MASQUERADED) == [
        "put iptables chain FLANNEL-POSTRTG of table nat: 2 jumps to it"
    ]
    away = JUMP.replace("-A", "-D")
    assert tools.told().endswith(f"{away}\n{away}\n{JUMP}\nCOMMIT\n")


@pytest.mark.parametrize("unwanted", [Iptables().remove, lambda: Iptables().ensure(NOTHING)])
def test_a_chain_that_is_not_wanted_goes_with_its_jump(tools: Tools, unwanted: object) -> None:
    """The jump first: a chain that is jumped to can't be deleted."""
    assert callable(unwanted)
    tools.lists(FLANNEL_POSTRTG=LISTED, POSTROUTING=JUMP)
    assert unwanted() == ["remove iptables chain FLANNEL-POSTRTG of table nat: not wanted"]
    away = JUMP.replace("-A", "-D")
    assert tools.told() == f"*nat\n{away}\n:FLANNEL-POSTRTG -\n-X FLANNEL-POSTRTG\nCOMMIT\n"


def test_a_chain_of_which_a_part_is_left_goes_too(tools: Tools) -> None:
    """The chain without a jump to it, as a removal that was cut short leaves it."""
    tools.lists(FLANNEL_POSTRTG=LISTED)
    assert Iptables().remove() == ["remove iptables chain FLANNEL-POSTRTG of table nat: not wanted"]
    assert tools.told() == "*nat\n:FLANNEL-POSTRTG -\n-X FLANNEL-POSTRTG\nCOMMIT\n"


def test_a_table_is_replaced_as_a_whole(tools: Tools) -> None:
    """In one transaction, though it was not there; then it is left alone until it differs."""
    rules = Nftables()
    assert rules.ensure(POLICY) == ["put nftables table ip flannel-ipv4: missing"]
    add, delete = "add table ip flannel-ipv4", "delete table ip flannel-ipv4"
    assert tools.told() == f"{add}\n{delete}\n{TABLE}"
    assert rules.ensure(POLICY) == []
    tools.lists(flannel_ipv4="as nft shows it")
    assert rules.ensure(POLICY) == ["put nftables table ip flannel-ipv4: it differed"]
    assert rules.ensure(POLICY) == []
    assert rules.ensure(NOTHING) == ["put nftables table ip flannel-ipv4: it differed"]


def test_a_table_is_removed_where_there_is_one(tools: Tools) -> None:
    """And written again if it is wanted again, though nft lists the same."""
    rules = Nftables()
    assert rules.remove() == []
    tools.lists(flannel_ipv4="as nft shows it")
    rules.ensure(POLICY)
    assert rules.remove() == ["remove nftables table ip flannel-ipv4: not wanted"]
    assert tools.calls()[-1] == "nft delete table ip flannel-ipv4"
    assert rules.ensure(POLICY)


def test_a_tool_that_fails_is_quoted_on_one_line(tools: Tools) -> None:
    """The command and its own words; without words the exit status."""
    assert tools.told() == ""
    with pytest.raises(ToolError, match="iptables -S X: no such"):
        firewall.run("iptables", "-S", "X")
    with pytest.raises(ToolError, match="false: exit status 1"):
        firewall.run("false")
    with pytest.raises(ToolError, match="nosuchtool is not installed; install it"):
        firewall.run("nosuchtool")


def test_a_chain_knows_its_rules_form() -> None:
    """A rule of (match, target) carries the chain's comment."""
    chain = Chain("nat", "X", "POSTROUTING", "why").with_rules(("-s 10.0.0.0/8", "RETURN"))
    assert chain.rules == ('-A X -s 10.0.0.0/8 -m comment --comment "why" -j RETURN',)
