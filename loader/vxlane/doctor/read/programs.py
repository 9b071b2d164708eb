# SPDX-License-Identifier: Apache-2.0
"""Reads which programs and filters of others stand on a device."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from vxlane.datapath import loose, syscall
from vxlane.datapath.abi import Program as Ours
from vxlane.datapath.attach import OWNER, PARENTS
from vxlane.datapath.syscall import TcxHook
from vxlane.doctor.facts import Program
from vxlane.errors import KernelError
from vxlane.host.veths import has_xdp
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import NetlinkSocket, Request, attributes, text_of

_OURS = frozenset(program.label for program in Ours)


class ProgramReader:
    """Tells others' programs from ours by name: the pins of an agent in a container are hidden."""

    def __init__(self, netlink: NetlinkSocket) -> None:
        self._netlink = netlink
        self._filtering = self._qdiscs()

    def on(self, ifindex: int) -> tuple[Program, ...]:
        """Others' programs on a device, XDP among them."""
        found = [
            program
            for hook in TcxHook
            for program in (*self._by_tcx(ifindex, hook), *self._filters(ifindex, hook))
        ]
        if has_xdp(self._netlink, ifindex):
            found.append(Program(hook="xdp", name=""))
        return tuple(found)

    def _by_tcx(self, ifindex: int, hook: TcxHook) -> Iterator[Program]:
        for number, link in syscall.tcx_links(ifindex, hook):
            name = loose.program_name(number)
            if name not in _OURS:
                yield Program(hook=hook.name.lower(), name=name, link=link)

    def _filters(self, ifindex: int, hook: TcxHook) -> Iterator[Program]:
        # An ingress qdisc has no egress; asked for it, the kernel names the filters of its ingress.
        if self._filtering.get(ifindex) not in {"clsact", hook.name.lower()}:
            return
        head = rt.TCMSG.pack(socket.AF_UNSPEC, ifindex, 0, PARENTS[hook], 0)
        for body in self._dump(Request(rt.RTM_GETTFILTER, head)):
            _, _, handle, _, info = rt.TCMSG.unpack_from(body)
            found = attributes(body, rt.TCMSG.size)
            kind = text_of(found[rt.TCA_KIND])
            options = attributes(found.get(rt.TCA_OPTIONS, b""), 0) if kind == "bpf" else {}
            name = text_of(options.get(rt.TCA_BPF_NAME, b""))
            # The kernel lists each chain's head too, with handle 0.
            if handle and not name.startswith(OWNER):
                yield Program(hook=hook.name.lower(), name=name or kind, priority=info >> 16)

    def _qdiscs(self) -> dict[int, str]:
        """Devices that can have filters -> clsact or ingress."""
        everything = rt.TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        found = {}
        for body in self._dump(Request(rt.RTM_GETQDISC, everything)):
            _, ifindex, _, parent, _ = rt.TCMSG.unpack_from(body)
            if parent == rt.TC_H_CLSACT:
                found[ifindex] = text_of(attributes(body, rt.TCMSG.size)[rt.TCA_KIND])
        return found

    def _dump(self, request: Request) -> list[bytes]:
        try:
            return self._netlink.dump(request)
        except KernelError:
            return []  # the device is gone
