# SPDX-License-Identifier: Apache-2.0
"""A flow's outer source port is the one that the kernel path gives it, in whichever form.

Linux 6.18 and 7.x make different ports of a hash. A flow that changed its port whenever it changes
its path would be spread anew over links and queues each time.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from bench import Bench
from looker import Looker, linked
from node import Node
from tables.case import DATAGRAM, only, sent
from test_carried import attached
from world import NIC, VETH
from worldmaps import stand

from vxlane.datapath import loose
from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.syscall import TcxHook
from vxlane.probes import instructions as bpf
from vxlane.probes.source_port import RANGE, port_of

FLOWS = range(20000, 20300)
_OUTER_SOURCE = 34
_LAST = RANGE[1] - RANGE[0] + 1


def ports(node: Node) -> dict[int, int]:
    """The outer source port of each flow, by its own; all flows send once."""
    node.wire.drain()
    seen = []
    # A socket's buffer holds so many frames.
    for start in range(0, len(FLOWS), 50):
        some = FLOWS[start : start + 50]
        for source in some:
            transport = replace(DATAGRAM, source=source, payload=source.to_bytes(8, "big"))
            node.pod.send(bytes(sent(transport)))
        last = some[-1].to_bytes(8, "big")
        seen += node.wire.until(lambda frame, last=last: frame.endswith(last))
    return {
        int.from_bytes(frame[-8:], "big"): int.from_bytes(frame[34:36], "big")
        for frame in seen
        if frame[12:14] == b"\x08\x00"
    }


@contextlib.contextmanager
def newer_kernel() -> Iterator[None]:
    """Have what leaves carry the ports of the other form, as from a kernel that uses the last."""

    def code(number: int, target: int, source: int = 0, value: int = 0) -> bytes:
        return struct.pack("=BBhi", number, source << 4 | target, 0, value)

    program = loose.prog_load(
        b"".join(
            (
                bpf.copy(bpf.CONTEXT, bpf.R1),
                bpf.load(bpf.R2, bpf.CONTEXT, 68),  # hash
                *(bpf.copy(bpf.R3, bpf.R2), code(0x67, bpf.R3, value=16)),  # << 16
                *(code(0xAF, bpf.R2, bpf.R3), code(0xBC, bpf.R2, bpf.R2)),  # ^, 32 bits of it
                *(code(0x27, bpf.R2, value=_LAST), code(0x77, bpf.R2, value=32)),  # *, >>
                *(bpf.add(bpf.R2, RANGE[0]), code(0xDC, bpf.R2, value=16)),  # to network order
                struct.pack("=BBhi", 0x6B, bpf.R2 << 4 | bpf.STACK, -2, 0),
                *(bpf.number(bpf.R2, _OUTER_SOURCE), bpf.copy(bpf.R3, bpf.STACK)),
                *(bpf.add(bpf.R3, -2), bpf.number(bpf.R4, 2), bpf.number(bpf.R5, 0)),
                *(bpf.copy(bpf.R1, bpf.CONTEXT), bpf.call(bpf.STORE_BYTES)),
                *bpf.answer(bpf.PASS),
            )
        )
    )
    try:
        with linked(program, NIC, TcxHook.EGRESS):
            yield
    finally:
        os.close(program)


@pytest.mark.parametrize("kernel_path", [contextlib.nullcontext, newer_kernel])
def test_hundreds_of_flows_keep_their_ports(
    node: Node, bench: Bench, kernel_path: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    """Each flow is bypassed with the port that it had, of this kernel's form or of another's."""
    stand(bench.maps, only())
    places = (Program.FROM_POD, VETH), (Program.TO_NIC, NIC)
    with kernel_path(), attached(bench, *places):
        kernel = ports(node)
    with attached(bench, *places), bench.counting() as moved:
        bypassed = ports(node)
    assert moved.packets == {(Program.FROM_POD, Verdict.ENCAPSULATED): len(FLOWS)}
    assert len(kernel) == len(FLOWS)
    assert bypassed == kernel


def test_the_forms_are_told_apart_here(node: Node, bench: Bench) -> None:
    """Half of these flows have another port in the other form, and this kernel's are of one."""
    stand(bench.maps, only())
    with contextlib.closing(Looker()) as looker, looker.at(NIC, TcxHook.EGRESS):
        found = []
        for source in FLOWS[:40]:
            node.wire.drain()
            payload = source.to_bytes(8, "big")
            node.pod.send(bytes(sent(replace(DATAGRAM, source=source, payload=payload))))
            frame = node.wire.receive(lambda seen, payload=payload: seen.endswith(payload))
            found.append((looker.seen()["hash"], int.from_bytes(frame[34:36], "big")))
    forms = [
        [port_of(hash_, *RANGE, is_last_used=form) for hash_, _ in found] for form in (False, True)
    ]
    assert [port for _, port in found] in forms
    assert 5 < sum(one != other for one, other in zip(*forms, strict=True)) < 35
