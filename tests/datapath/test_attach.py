# SPDX-License-Identifier: Apache-2.0
"""Hooks: programs on devices, by TCX and by clsact, beside what others have put there.

What stands is asked of the kernel by sending frames and counting, never of the code under test
alone. A second build of the programs plays the part of someone else's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from bench import Bench
from chamber import Port, ip
from device import INDEX, Device, add_device, open_far, stands
from machinecan import BOTH
from node import Node
from world import World
from worldmaps import stand

from vxlane.datapath import syscall
from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.attach import Hooks, Method
from vxlane.datapath.syscall import TcxHook
from vxlane.errors import KernelError
from vxlane.netlink.socket import NetlinkSocket


@pytest.fixture(params=[pytest.param(Method.AUTO, id="auto"), *BOTH])
def hooks(
    request: pytest.FixtureRequest, node: Node, bench: Bench, netlink: NetlinkSocket
) -> Iterator[Hooks]:
    """Hooks of each method; at the end nothing is left."""
    made = Hooks(bench.pins, request.param, netlink)
    yield made
    node.chamber.run(made.detach_all)


@pytest.mark.parametrize("program", list(Program), ids=lambda program: program.label)
def test_attach_and_detach(bench: Bench, hooks: Hooks, device: Device, program: Program) -> None:
    """Attached, the program sees each frame of its hook once; detached, nothing is left of it."""
    stand(bench.maps, World())
    with bench.counting() as moved:
        hooks.attach(program, INDEX)
        assert hooks.attached() == {(program, INDEX)}
        device.send(program, 3)
        hooks.detach(program, INDEX)
        assert hooks.attached() == set()
        device.send(program, 2)
    # The exits look at nothing that carries no stamp, and to_nic does not even count it.
    verdict = Verdict.NO_STAMP if program is Program.TO_POD else Verdict.NOT_IP
    counted = {} if program is Program.TO_NIC else {(program, verdict): 3}
    assert moved.packets == counted
    assert [stands(hook) for hook in TcxHook] == [(0, False), (0, False)]


def test_attaching_again(bench: Bench, hooks: Hooks, device: Device) -> None:
    """A second attach, and one by an agent that has been restarted, changes nothing."""
    stand(bench.maps, World())
    successor = Hooks(bench.pins, hooks._method, hooks._netlink)
    with bench.counting() as moved:
        for one in (hooks, hooks, successor):
            one.attach(Program.FROM_NIC, INDEX)
        device.send(Program.FROM_NIC, 2)
    assert moved.packets == {(Program.FROM_NIC, Verdict.NOT_IP): 2}
    assert successor.attached() == {(Program.FROM_NIC, INDEX)}
    successor.detach(Program.FROM_NIC, INDEX)
    assert hooks.attached() == set()


@pytest.mark.usefixtures("device")
def test_detaching_what_does_not_stand(hooks: Hooks) -> None:
    """Detaching where nothing stands, or where there is no device, is no error."""
    hooks.detach(Program.FROM_NIC, INDEX)
    hooks.detach(Program.TO_POD, 9999)
    assert hooks.attached() == set()


def test_both_hooks_of_a_device(bench: Bench, hooks: Hooks, device: Device) -> None:
    """Ingress and egress of one device are apart: detaching one leaves the other."""
    stand(bench.maps, World())
    hooks.attach(Program.FROM_POD, INDEX)
    hooks.attach(Program.TO_POD, INDEX)
    hooks.detach(Program.FROM_POD, INDEX)
    with bench.counting() as moved:
        device.send(Program.FROM_POD, 1)
        device.send(Program.TO_POD, 1)
    assert moved.packets == {(Program.TO_POD, Verdict.NO_STAMP): 1}
    assert hooks.attached() == {(Program.TO_POD, INDEX)}


@pytest.mark.usefixtures("device")
def test_device_gone(bench: Bench, hooks: Hooks) -> None:
    """With its device a program is gone, and so is its pin."""
    before = set(bench.pins.iterdir())
    hooks.attach(Program.FROM_NIC, INDEX)
    ip("link delete hook")
    assert hooks.attached() == set()
    assert set(bench.pins.iterdir()) == before


@pytest.mark.usefixtures("device")
def test_index_used_again(node: Node, bench: Bench, hooks: Hooks) -> None:
    """A new device under a dead one's index has nothing attached, and can have."""
    stand(bench.maps, World())
    hooks.attach(Program.FROM_NIC, INDEX)
    ip("link delete hook")
    add_device(node.outside.tid)
    again = Device(near=Port("hook"), far=node.outside.run(open_far))
    with bench.counting() as moved:
        again.send(Program.FROM_NIC, 1)
        hooks.attach(Program.FROM_NIC, INDEX)
        again.send(Program.FROM_NIC, 4)
    again.near.close()
    again.far.close()
    assert moved.packets == {(Program.FROM_NIC, Verdict.NOT_IP): 4}


def test_half_made_pins(bench: Bench, auto: Hooks, device: Device) -> None:
    """What an agent leaves that is killed while it pins programs is no obstacle to the next."""
    stand(bench.maps, World())
    half = bench.pins / "new-from_nic"
    program = syscall.obj_get(bench.pins / "from_nic")
    syscall.obj_pin(program, half)
    auto.attach(Program.FROM_NIC, INDEX)
    assert auto.attached() == {(Program.FROM_NIC, INDEX)}
    syscall.obj_replace(program, bench.pins / "from_nic")
    os.close(program)
    assert not half.exists()
    with bench.counting() as moved:
        device.send(Program.FROM_NIC, 2)
    assert moved.packets == {(Program.FROM_NIC, Verdict.NOT_IP): 2}


@pytest.mark.parametrize("method", BOTH)
def test_no_device(bench: Bench, netlink: NetlinkSocket, method: Method) -> None:
    """Attaching to a device that is not there says so, and leaves no pin."""
    before = set(bench.pins.iterdir())
    with pytest.raises(KernelError, match="attach to_pod to interface 9999 by"):
        Hooks(bench.pins, method, netlink).attach(Program.TO_POD, 9999)
    assert set(bench.pins.iterdir()) == before
