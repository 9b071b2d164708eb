# SPDX-License-Identifier: Apache-2.0
"""Masquerade and forward rules: written whole, never missing for a moment, repaired, removed."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from vxlane.errors import ToolError, ToolTimeoutError
from vxlane.host import firewall as firewall_module
from vxlane.host.firewall import Firewall, Forward, Masquerade, Policy
from vxlane.host.iptables import Iptables
from vxlane.host.nftables import Nftables

POLICY = Policy(
    IPv4Network("10.42.0.0/16"),
    IPv4Network("10.42.66.0/24"),
    Masquerade.FULLY_RANDOM,
    Forward.ACCEPT,
)
OTHER = Policy(
    IPv4Network("10.43.0.0/16"), IPv4Network("10.43.1.0/24"), Masquerade.ON, Forward.ACCEPT
)
LISTING = {Iptables: "iptables-save", Nftables: "nft list ruleset"}
MASQUERADE = {Iptables: "! -d 224.0.0.0/4", Nftables: "ip daddr != 224.0.0.0/4 masquerade"}


def shown(firewall: Firewall) -> str:
    """All rules, as the firewall's own tool lists them, without its comments: the time is there."""
    command = LISTING[type(firewall)].split()
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "\n".join(line for line in listed.splitlines() if not line.startswith("#"))


@pytest.fixture(params=["iptables-nft", "iptables-legacy", "nftables"])
def firewall(
    netns: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Firewall]:
    """A way of writing rules; an iptables of either kind under its plain name."""
    assert netns
    if request.param == "nftables":
        yield Nftables()
        return
    for suffix in ("", "-restore", "-save"):
        tool = Path("/usr/sbin") / f"{request.param}{suffix}"
        if not tool.exists():
            pytest.skip(f"{tool} is not installed; install the package iptables")
        (tmp_path / f"iptables{suffix}").symlink_to(tool)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    yield Iptables()


def test_rules_are_written_once_and_removed(firewall: Firewall) -> None:
    """A second `ensure` changes nothing, and a removal leaves nothing of flannel's."""
    assert firewall.ensure(POLICY)
    before = shown(firewall)
    assert MASQUERADE[type(firewall)] in before
    assert firewall.ensure(POLICY) == []
    assert shown(firewall) == before
    assert firewall.remove()
    assert "flannel" not in shown(firewall).lower()
    assert firewall.remove() == []


def test_another_network_replaces_the_old_rules(firewall: Firewall) -> None:
    """Rules of a former network or pod CIDR go when those of the new one come."""
    firewall.ensure(POLICY)
    assert firewall.ensure(OTHER)
    assert "10.42." not in shown(firewall)
    assert "10.43.1.0/24" in shown(firewall)
    assert "random" not in shown(firewall)


def test_rules_are_never_missing_while_they_are_replaced(firewall: Firewall) -> None:
    """Whoever lists the rules during 20 replacements finds a masquerade rule every time."""
    firewall.ensure(POLICY)
    stop, readings = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            readings.append(MASQUERADE[type(firewall)] in shown(firewall))

    watcher = threading.Thread(target=read)
    watcher.start()
    for number in range(20):
        firewall.ensure(OTHER if number % 2 == 0 else POLICY)
    stop.set()
    watcher.join()
    assert len(readings) > 5
    assert all(readings)


def test_rules_may_be_unwanted(firewall: Firewall) -> None:
    """Without masquerade and forward rules the rules that are there go."""
    firewall.ensure(POLICY)
    firewall.ensure(Policy(POLICY.network, POLICY.pod_cidr, Masquerade.OFF, Forward.OFF))
    assert "10.42." not in shown(firewall)


def test_a_tool_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that hangs is ended after its time and named; its rules do not count as missing."""
    (tmp_path / "nft").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(firewall_module, "TIMEOUT", 0.2)
    began = time.monotonic()
    with pytest.raises(
        ToolTimeoutError, match=r"list table .*: no end after 0\.2 s; it was killed"
    ):
        Nftables().ensure(POLICY)
    assert time.monotonic() - began < 5


def test_a_missing_tool_is_named(netns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without iptables or nft the sentence says what to install."""
    assert netns
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolError, match="iptables-restore is not installed"):
        Iptables().ensure(POLICY)
    with pytest.raises(ToolError, match="nft is not installed"):
        Nftables().ensure(POLICY)
