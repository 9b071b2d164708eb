# SPDX-License-Identifier: Apache-2.0
"""Hooks that others use too: their filters go on seeing every packet, ours take nothing away.

Someone else is a second build of the programs, with counters of its own, or a u32 filter that
mirrors what it sees to a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from bench import Bench
from device import INDEX, Device, tc
from node import Node
from tables.from_nic import ANSWER, carried, inner
from world import APPROVED, NIC, World
from worldmaps import stand

from vxlane.datapath import syscall
from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.attach import Hooks, Method
from vxlane.datapath.syscall import TcxHook
from vxlane.errors import KernelError
from vxlane.netlink.socket import NetlinkSocket

FRAME = bytes(carried(inner(ANSWER)))
MIRROR = ("u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", "hook")


@pytest.fixture
def someone(strict_bench: Bench, node: Node) -> Bench:
    """Someone else's programs; they see without judging."""
    node.chamber.run(stand, strict_bench.maps, replace(APPROVED, lease=-1))
    return strict_bench


@pytest.fixture
def nic(node: Node) -> Iterator[Callable[..., None]]:
    """Give tc commands for the NIC; at the end it has no qdisc."""

    def on_nic(words: str, *more: str) -> None:
        tc(*words.split(), *more)

    yield on_nic
    node.chamber.run(no_qdisc)


def no_qdisc() -> None:
    """Remove whichever qdisc with filters the NIC has."""
    for kind in ("clsact", "ingress"):
        if kind in tc("qdisc", "show", "dev", "nic"):
            tc("qdisc", "delete", "dev", "nic", kind)


def deliver(node: Node) -> None:
    """An approved frame from the wire to the pod."""
    node.pod.drain()
    node.wire.send(FRAME)
    node.pod.receive(lambda frame: frame.endswith(ANSWER.payload))


def test_named_filter_of_a_nic(
    node: Node, bench: Bench, someone: Bench, auto: Hooks, nic: Callable[..., None]
) -> None:
    """A bpf filter that stood first on a NIC still sees what the bypass takes."""
    nic("qdisc add dev nic clsact")
    nic("filter add dev nic ingress bpf direct-action pinned", str(someone.pins / "from_nic"))
    auto.attach(Program.FROM_NIC, NIC)
    stand(bench.maps, APPROVED)
    with bench.counting() as ours, someone.counting() as theirs:
        deliver(node)
    assert theirs.packets == {(Program.FROM_NIC, Verdict.NO_AGENT): 1}
    assert ours.packets == {(Program.FROM_NIC, Verdict.DECAPSULATED): 1}
    assert syscall.tcx_programs(NIC, TcxHook.INGRESS) == []


@pytest.mark.parametrize("qdisc", ["clsact", "ingress"])
def test_nameless_filter_of_a_nic(
    node: Node,
    bench: Bench,
    auto: Hooks,
    nic: Callable[..., None],
    device: Device,
    qdisc: str,
) -> None:
    """A filter without a name, on a qdisc of either kind, still sees what the bypass takes."""
    nic(f"qdisc add dev nic {qdisc}")
    nic("filter add dev nic ingress protocol all prio 1", *MIRROR, "continue")
    auto.attach(Program.FROM_NIC, NIC)
    assert auto.attached() == {(Program.FROM_NIC, NIC)}
    stand(bench.maps, APPROVED)
    with bench.counting() as ours:
        deliver(node)
    assert ours.packets == {(Program.FROM_NIC, Verdict.DECAPSULATED): 1}
    assert device.far.receive(lambda frame: frame.endswith(ANSWER.payload)) == FRAME

    auto.detach(Program.FROM_NIC, NIC)
    with bench.counting() as ours:
        deliver(node)
    assert ours.packets == {}
    assert device.far.receive(lambda frame: frame.endswith(ANSWER.payload)) == FRAME


@pytest.mark.tcx
def test_tcx_program_of_a_nic(node: Node, bench: Bench, someone: Bench, auto: Hooks) -> None:
    """A TCX program that stood first on a NIC still sees what the bypass takes."""
    program = syscall.obj_get(someone.pins / "from_nic")
    link = syscall.link_create(program, NIC, TcxHook.INGRESS)
    syscall.obj_pin(link, someone.pins / "theirs")
    auto.attach(Program.FROM_NIC, NIC)
    stand(bench.maps, APPROVED)
    with bench.counting() as ours, someone.counting() as theirs:
        deliver(node)
    foreign = auto.has_foreign_filters(TcxHook.INGRESS, NIC)
    syscall.link_detach(someone.pins / "theirs")
    someone.pins.joinpath("theirs").unlink()
    assert theirs.packets == {(Program.FROM_NIC, Verdict.NO_AGENT): 1}
    assert ours.packets == {(Program.FROM_NIC, Verdict.DECAPSULATED): 1}
    assert foreign
    assert not auto.has_foreign_filters(TcxHook.INGRESS, NIC)


@pytest.mark.tcx
def test_bandwidth_of_a_pod(
    bench: Bench, auto: Hooks, device: Device, nic: Callable[..., None]
) -> None:
    """On a pod's veth with an ingress qdisc ours stands in front, and only that way is foreign."""
    nic("qdisc add dev hook ingress")
    nic("filter add dev hook parent ffff: protocol all prio 1", *MIRROR)
    stand(bench.maps, World())
    auto.attach(Program.FROM_POD, INDEX)
    auto.attach(Program.TO_POD, INDEX)
    assert auto.has_foreign_filters(TcxHook.INGRESS, INDEX)
    assert not auto.has_foreign_filters(TcxHook.EGRESS, INDEX)
    with bench.counting() as moved:
        device.send(Program.FROM_POD, 2)
    assert moved.packets == {
        (Program.FROM_POD, Verdict.NOT_IP): 2,
        (Program.TO_POD, Verdict.NO_STAMP): 2,  # the mirror sends them back
    }


def test_ours_are_not_foreign(
    bench: Bench, netlink: NetlinkSocket, auto: Hooks, nic: Callable[..., None]
) -> None:
    """Programs of ours, by either method, and an empty clsact are nobody else's filters."""
    nic("qdisc add dev nic clsact")
    by_clsact = Hooks(bench.pins, Method.CLSACT, netlink)
    auto.attach(Program.FROM_NIC, NIC)
    by_clsact.attach(Program.TO_NIC, NIC)
    assert auto.attached() == {(Program.FROM_NIC, NIC), (Program.TO_NIC, NIC)}
    assert not any(auto.has_foreign_filters(hook, NIC) for hook in TcxHook)


def test_someones_clsact_stays(
    bench: Bench, someone: Bench, netlink: NetlinkSocket, nic: Callable[..., None]
) -> None:
    """Detaching takes our filter, and not the qdisc on which another's filter stands."""
    nic("qdisc add dev nic clsact")
    nic("filter add dev nic egress bpf direct-action pinned", str(someone.pins / "to_nic"))
    hooks = Hooks(bench.pins, Method.CLSACT, netlink)
    for program in (Program.FROM_NIC, Program.TO_NIC):
        hooks.attach(program, NIC)
        hooks.detach(program, NIC)
    assert hooks.attached() == set()
    assert "to_nic" in tc("filter", "show", "dev", "nic", "egress")
    assert "vxlane/" not in tc("filter", "show", "dev", "nic", "egress")


def test_clsact_beside_an_ingress_qdisc(
    bench: Bench, netlink: NetlinkSocket, nic: Callable[..., None]
) -> None:
    """Where an ingress qdisc leaves no place for an egress filter, the error says so."""
    nic("qdisc add dev nic ingress")
    hooks = Hooks(bench.pins, Method.CLSACT, netlink)
    with pytest.raises(KernelError, match="an ingress qdisc of someone else has no egress"):
        hooks.attach(Program.TO_NIC, NIC)
    assert hooks.attached() == set()
