# SPDX-License-Identifier: Apache-2.0
"""The CPUs' counters, from texts as /proc has them."""

from vxlane.host import machine

STAT = """cpu  30 0 6 60 0 0 3 1 0 0
cpu0 10 0 2 20 0 0 1 1 0 0
cpu2 20 0 4 40 0 0 2 0 0 0
intr 5 0
"""
SOFTIRQS = """                    CPU0       CPU2
          HI:          1          2
      NET_TX:          3          4
      NET_RX:         50         60
"""
SOFTNET = """00000010 00000001 00000002 00000000
00000020 0000000f 00000001 00000000
"""


def test_counters():
    """By the CPUs' own numbers, of which one may be offline; softnet_stat is hexadecimal."""
    found = machine.parse(STAT, SOFTIRQS, SOFTNET)
    assert list(found.cpus) == [0, 2]
    assert found.cpus[2].ticks["softirq"] == 2
    assert (found.cpus[2].net_rx, found.cpus[2].net_tx) == (60, 4)
    assert (found.dropped, found.squeezed) == (16, 3)


def test_this_machine():
    """The running kernel's files have what is read of them."""
    found = machine.read()
    assert found.cpus
    assert all(set(cpu.ticks) == set(machine.STATES) for cpu in found.cpus.values())
