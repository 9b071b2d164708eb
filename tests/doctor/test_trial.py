# SPDX-License-Identifier: Apache-2.0
"""A fix that is tried: kept if nothing is worse, else taken back."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
from dataclasses import replace

import pytest
from chamber import Chamber, ip

from vxlane.doctor import trial
from vxlane.doctor.findings import fail, ok, warn
from vxlane.doctor.load import Load, Reading, between, worse
from vxlane.doctor.read import load as read_load
from vxlane.doctor.read.load import reading
from vxlane.errors import ToolError
from vxlane.host.machine import Cpu, Machine
from vxlane.host.offloads import features
from vxlane.lab.waiting import wait_for
from vxlane.netlink.socket import NetlinkSocket

QUIET = Load(seconds=10, packets=100, octets=10_000, lost=0, invalid=0, kernel_seconds=0.1)
BUSY = Load(
    seconds=10, packets=1_000_000, octets=1_000_000_000, lost=0, invalid=0, kernel_seconds=2
)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (QUIET, QUIET, ""),
        (BUSY, BUSY, ""),
        (BUSY, replace(BUSY, kernel_seconds=2.4), ""),
        (BUSY, replace(BUSY, kernel_seconds=2.6), "a byte took 2.60 ns"),
        (BUSY, replace(BUSY, octets=600_000_000, kernel_seconds=1.2), ""),
        (BUSY, replace(BUSY, octets=400_000_000), "traffic fell from 100.0 to 40.0"),
        (QUIET, replace(QUIET, octets=0), ""),
        (QUIET, replace(QUIET, lost=10), ""),
        (QUIET, replace(QUIET, lost=11), "11 packets were lost, and 0 before"),
        (BUSY, replace(BUSY, invalid=50), "50 packets were invalid"),
        (replace(BUSY, lost=100), replace(BUSY, lost=200), ""),
        (replace(BUSY, lost=100), replace(BUSY, lost=211), "211 packets were lost, and 100"),
    ],
)
def test_what_is_worse(before, after, words):
    """Losses, traffic that fell by half and a byte that costs a quarter more are worse."""
    assert worse(before, after).startswith(words)
    assert bool(worse(before, after)) == bool(words)


def test_what_can_be_taken_back():
    """Of all commands that mend only settings and offloads are tried, each with its way back."""
    found = [
        warn("offloads", "x", "y", "ethtool -K eth0 rx-gro on"),
        fail("ip-forward", "x", "y", "sysctl -w kernel.ostype=Linux", "ip link set eth0 up"),
        warn("offloads", "x", "y", "sysctl -w no.such.setting=1"),
    ]
    assert [change.undo for change in trial.changes(found, "offloads")] == [
        "ethtool -K eth0 rx-gro off"
    ]
    assert [change.undo for change in trial.changes(found, "ip-forward")] == [
        "sysctl -w kernel.ostype=Linux"
    ]


@pytest.fixture
def chamber(_machine, monkeypatch):
    """A namespace with a device that has an offload off."""
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    opened = Chamber()
    opened.run(ip, "link add eth0 type veth peer name wire", "link set eth0 up")
    opened.run(subprocess.run, ["ethtool", "-K", "eth0", FEATURE, "off"], check=True)
    yield opened
    opened.close()


FEATURE = "tx-udp_tnl-segmentation"
FOUND = [warn("offloads", "it is off", "slow", f"ethtool -K eth0 {FEATURE} on")]
WELL = [ok("offloads", "on")]


def readings(*lost):
    """Counters as they would be read one after the other, the lost ones given."""
    counted, clock = iter(lost), itertools.count()
    return lambda: Reading(
        seconds=next(clock), packets=0, octets=0, lost=next(counted), invalid=0, kernel_seconds=0
    )


def is_on():
    """Whether the offload is on."""
    return features("eth0")[FEATURE].is_on


def test_a_fix_that_mends_is_kept(chamber):
    """The finding is gone and nothing is worse: it stays, with the command that takes it back."""
    arguments = "offloads", FOUND, lambda: WELL, readings(0, 0, 0, 0)
    outcome = chamber.run(trial.attempt, *arguments)
    assert (outcome["kept"], outcome["reason"]) == (True, None)
    assert outcome["undo"] == [f"ethtool -K eth0 {FEATURE} off"]
    assert chamber.run(is_on)


def test_a_count_that_goes_on_is_nothing_new(chamber):
    """What was found before stays found, whatever its number is by now."""
    before, now = ([warn("rp-filter", f"has dropped {n} packets", "lost")] for n in (9, "1,010"))
    outcome = chamber.run(
        trial.attempt, "offloads", FOUND + before, lambda: now, readings(*[0] * 4)
    )
    assert (outcome["kept"], outcome["reason"]) == (True, None)


@pytest.mark.parametrize(
    ("now", "lost", "words"),
    [
        (FOUND, (0, 0, 0, 0), "it did not mend this: it is off"),
        ([fail("mtu", "too small", "lost")], (0, 0, 0, 0), "it brought this: mtu: too small"),
        (WELL, (0, 0, 0, 99), "99 packets were lost"),
    ],
)
def test_a_fix_that_does_harm_is_taken_back(chamber, now, lost, words):
    """It mends nothing, brings another finding, or packets are lost: the old state is back."""
    outcome = chamber.run(trial.attempt, "offloads", FOUND, lambda: now, readings(*lost))
    assert not outcome["kept"]
    assert outcome["reason"].startswith(words)
    assert not chamber.run(is_on)


def test_whatever_ends_a_trial_takes_it_back(chamber):
    """Ctrl-C while it is watched, or a command that fails, leaves the old state."""

    def interrupted():
        assert is_on()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chamber.run(trial.attempt, "offloads", FOUND, interrupted, readings(0, 0, 0, 0))
    assert not chamber.run(is_on)
    broken = [*FOUND, warn("offloads", "b", "c", "ethtool -K eth0 no-such-feature on")]
    with pytest.raises(ToolError, match="no-such-feature"):
        chamber.run(trial.attempt, "offloads", broken, lambda: WELL, readings(0, 0, 0, 0))
    assert not chamber.run(is_on)


def test_counters_stand_where_the_kernel_has_them(monkeypatch, tmp_path):
    """Conntrack is summed over the CPUs; of CPU time the kernel's counts."""
    texts = {
        "_CONNTRACK": (
            "entries invalid insert insert_failed drop early_drop\n9 1 5 2 4 8\n9 10 5 20 40 80\n"
        ),
    }
    for name, written in texts.items():
        (tmp_path / name).write_text(written)
        monkeypatch.setattr(read_load, name, tmp_path / name)
    monkeypatch.setattr(read_load, "_nic", lambda *_: (0, 0, 1000))
    ticks = {"user": 9, "system": 150, "irq": 30, "softirq": 20}
    cpus = {number: Cpu(ticks, 0, 0) for number in (0, 1)}
    monkeypatch.setattr(read_load.machine, "read", lambda: Machine(cpus, 0x13, 0))
    found = reading(None, 0)
    assert found.lost == 1000 + 0x13 + (2 + 4 + 8) + (0x20 + 0x40 + 0x80)
    assert found.invalid == 1 + 0x10
    assert found.kernel_seconds == 400 / os.sysconf("SC_CLK_TCK")


def test_counters_are_those_of_the_traffic(chamber):
    """Packets and bytes of the NIC move with what is sent."""

    def measured():
        netlink = NetlinkSocket()
        nic = socket.if_nametoindex("eth0")
        first = reading(netlink, nic)
        subprocess.run(["ip", "link", "set", "wire", "up"], check=True)
        # The kernel gives the device its queue a moment after its carrier.
        show = ("ip", "link", "show", "eth0")
        wait_for(lambda: b"qdisc noop " not in subprocess.check_output(show), "a queue")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("eth0", 0x88B5))
            for _ in range(5):
                wire.send(bytes(12) + b"\x88\xb5" + bytes(986))
        last = reading(netlink, nic)
        netlink.close()
        return between(first, last)

    load = chamber.run(measured)
    assert (load.packets >= 5, load.octets >= 5000, load.lost) == (True, True, 0)
