# SPDX-License-Identifier: Apache-2.0
"""Attaches programs to devices: by TCX if the kernel has it, else as clsact filters.

What is attached outlives the agent. So it is always read from the kernel (pinned links, filters
with our name) and never remembered. TCX needs no qdisc, so it never collides with that of the
bandwidth plugin. But it runs before clsact. If a NIC or a VXLAN device has someone else's filters,
ours is attached behind them as a clsact filter of the last priority, so that theirs still see every
packet. If theirs came later, ours are `in_front`, and have to be attached again. On a pod's veth
ours may be in front: the pod's guard then leaves all its packets to the kernel path.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

from vxlane.datapath import syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.syscall import TcxHook
from vxlane.errors import KernelError
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import (
    Intent,
    NetlinkSocket,
    Request,
    attribute,
    attributes,
    string_attribute,
    text_of,
)

_HOOKS = {
    Program.FROM_POD: TcxHook.INGRESS,
    Program.TO_POD: TcxHook.EGRESS,
    Program.FROM_NIC: TcxHook.INGRESS,
    Program.TO_NIC: TcxHook.EGRESS,
}
PARENTS = {TcxHook.INGRESS: rt.CLSACT_INGRESS, TcxHook.EGRESS: rt.CLSACT_EGRESS}
_BEHIND_OTHERS = (Program.FROM_NIC, Program.TO_NIC)
OWNER = "vxlane/"
"""Begins the names of our filters."""
_LAST_PRIORITY = 0xFFF0
_HANDLE = 1
ETH_P_ALL = 3
_BPF = b"bpf\0"


class Method(Enum):
    """How programs are attached; AUTO decides for each device."""

    AUTO = "auto"
    TCX = "tcx"
    CLSACT = "clsact"


class Hooks:
    """Attaches what is pinned in `pins` to devices of the calling thread's network namespace."""

    def __init__(self, pins: Path, method: Method, netlink: NetlinkSocket) -> None:
        self._pins = pins
        self._method = method
        self._netlink = netlink

    def attached(self) -> set[tuple[Program, int]]:
        """(program, ifindex) of everything that is attached now, by either method."""
        bpf_links = {place for place, _ in self._bpf_links()}
        return bpf_links | set(self._filters())

    def attach(self, program: Program, ifindex: int) -> None:
        """Attach, unless it is attached by TCX already. A filter of ours is replaced.

        KernelError: the kernel refused it; the message has advice.
        """
        if self._has_bpf_link(program, ifindex):
            return
        descriptor = syscall.obj_get(self._pins / program.label)
        try:
            if self._choose(program, ifindex) is Method.CLSACT:
                self._add_filter(program, ifindex, descriptor)
            else:
                self._add_bpf_link(program, ifindex, descriptor)
        finally:
            os.close(descriptor)

    def detach(self, program: Program, ifindex: int) -> None:
        """Detach by either method, at once. Does nothing if it is not attached."""
        pin = self._pin(program, ifindex)
        if pin.exists():
            syscall.link_detach(pin)
            pin.unlink()
        if self._has_filter(program, ifindex):
            self._remove_filter(program, ifindex)

    def detach_all(self) -> None:
        """Detach everything that is ours."""
        for program, ifindex in self.attached():
            self.detach(program, ifindex)

    def refresh(self) -> None:
        """Replace the attached programs by those that are pinned now, with no gap in between."""
        for (program, _), pin in self._bpf_links():
            link = syscall.obj_get(pin)
            descriptor = syscall.obj_get(self._pins / program.label)
            try:
                syscall.link_update(link, descriptor)
            finally:
                os.close(link)
                os.close(descriptor)
        for program, ifindex in self._filters():
            descriptor = syscall.obj_get(self._pins / program.label)
            try:
                self._replace_filter(program, ifindex, descriptor)
            finally:
                os.close(descriptor)

    def has_foreign_filters(self, hook: TcxHook, ifindex: int) -> bool:
        """Whether someone else's tc filter or TCX program is attached to this hook."""
        ours = sum(
            self._has_bpf_link(program, ifindex) for program, on in _HOOKS.items() if on is hook
        )
        return len(syscall.tcx_programs(ifindex, hook)) > ours or self._has_others(hook, ifindex)

    def in_front(self) -> list[tuple[Program, int]]:
        """Where ours run before someone else's that came later, although they should not.

        If they are attached again, they run behind.
        """
        return [
            (program, ifindex)
            for (program, ifindex), pin in self._bpf_links(_BEHIND_OTHERS)
            if syscall.tcx_programs(ifindex, _HOOKS[program])[-1:] != [syscall.link_program(pin)]
            or (self._method is Method.AUTO and self._has_others(_HOOKS[program], ifindex))
        ]

    def _has_others(self, hook: TcxHook, ifindex: int) -> bool:
        names = self._filter_names(hook, ifindex)
        return any(not name.startswith(OWNER) for name in names)

    def _choose(self, program: Program, ifindex: int) -> Method:
        if self._method is not Method.AUTO:
            return self._method
        if not syscall.has_tcx():
            return Method.CLSACT
        behind = program in _BEHIND_OTHERS and self._filter_names(_HOOKS[program], ifindex)
        return Method.CLSACT if behind else Method.TCX

    def _pin(self, program: Program, ifindex: int) -> Path:
        return self._pins / f"link-{program.label}-{ifindex}"

    def _has_bpf_link(self, program: Program, ifindex: int) -> bool:
        return syscall.link_ifindex(self._pin(program, ifindex)) == ifindex

    def _has_filter(self, program: Program, ifindex: int) -> bool:
        return f"{OWNER}{program.label}" in self._filter_names(_HOOKS[program], ifindex)

    def _bpf_links(
        self, programs: Iterable[Program] = tuple(Program)
    ) -> Iterator[tuple[tuple[Program, int], Path]]:
        """The links that work. A link whose device is gone is unpinned on the way."""
        for program in programs:
            for pin in sorted(self._pins.glob(f"link-{program.label}-*")):
                ifindex = int(pin.name.rpartition("-")[2])
                if syscall.link_ifindex(pin) == ifindex:
                    yield (program, ifindex), pin
                else:
                    pin.unlink(missing_ok=True)

    def _add_bpf_link(self, program: Program, ifindex: int, descriptor: int) -> None:
        """Attach by TCX. The kernel waits for an RCU grace period meanwhile, and holds the lock of
        all devices (include/net/tcx.h, tcx_entry_sync): 13 ms at 250 Hz, twice for each pod. Only
        rcu_expedited would shorten that, for the whole machine, and kill -9 would leave it set.
        """
        operation = f"attach {program.label} to interface {ifindex} by TCX"
        try:
            link = syscall.link_create(descriptor, ifindex, _HOOKS[program])
        except OSError as error:
            advice = "TCX needs Linux 6.6; use --attach clsact" if not syscall.has_tcx() else ""
            raise KernelError(operation, error.errno or 0, advice) from error
        pin = self._pin(program, ifindex)
        pin.unlink(missing_ok=True)  # of a dead link: an earlier device had this index
        try:
            syscall.obj_pin(link, pin)
        finally:
            os.close(link)

    def _filters(self) -> set[tuple[Program, int]]:
        return {
            (program, ifindex)
            for ifindex in self._qdiscs()
            for program in Program
            if self._has_filter(program, ifindex)
        }

    def _qdiscs(self) -> dict[int, str]:
        """Ifindex of each device that can have filters -> "clsact" or "ingress"."""
        everything = rt.TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        kinds = {}
        for body in self._netlink.dump(Request(rt.RTM_GETQDISC, everything)):
            _, ifindex, _, parent, _ = rt.TCMSG.unpack_from(body)
            if parent == rt.TC_H_CLSACT:
                kind = attributes(body, rt.TCMSG.size)[rt.TCA_KIND]
                kinds[ifindex] = text_of(kind)
        return kinds

    def _takes_filters(self, hook: TcxHook, ifindex: int) -> bool:
        """Whether a device can have filters on this hook.

        For an ingress qdisc the kernel lists its ingress filters even if egress is asked for.
        """
        kind = self._qdiscs().get(ifindex)
        return kind == "clsact" or (kind == "ingress" and hook is TcxHook.INGRESS)

    def _filter_names(self, hook: TcxHook, ifindex: int) -> list[str]:
        """The names of a hook's filters; "" for a filter without a name."""
        selection = rt.TCMSG.pack(socket.AF_UNSPEC, ifindex, 0, PARENTS[hook], 0)
        try:
            filters = self._netlink.dump(Request(rt.RTM_GETTFILTER, selection))
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
                return []
            raise
        # Only now, because this lists the qdiscs of all devices, and most veths have no filter.
        if not filters or not self._takes_filters(hook, ifindex):
            return []
        # The kernel lists each chain's head too, with handle 0 and no options.
        return [_name(body) for body in filters if rt.TCMSG.unpack_from(body)[2]]

    def _add_filter(self, program: Program, ifindex: int, descriptor: int) -> None:
        if not self._takes_filters(_HOOKS[program], ifindex):
            operation = f"attach {program.label} to interface {ifindex} by clsact"
            advice = "an ingress qdisc of someone else has no egress; see 'tc qdisc show'"
            self._tell(Request(rt.RTM_NEWQDISC, clsact(ifindex), Intent.ADD), operation, advice)
        self._replace_filter(program, ifindex, descriptor)

    def _replace_filter(self, program: Program, ifindex: int, descriptor: int) -> None:
        options = attribute(rt.TCA_BPF_FD, rt.U32.pack(descriptor))
        options += string_attribute(rt.TCA_BPF_NAME, f"{OWNER}{program.label}")
        options += attribute(rt.TCA_BPF_FLAGS, rt.U32.pack(rt.TCA_BPF_FLAG_ACT_DIRECT))
        body = _filter(program, ifindex) + attribute(rt.TCA_OPTIONS, options)
        operation = f"attach {program.label} to interface {ifindex} by clsact"
        self._tell(Request(rt.RTM_NEWTFILTER, body, Intent.PUT), operation)

    def _remove_filter(self, program: Program, ifindex: int) -> None:
        """Remove our filter, and the qdisc if no filter is left on it."""
        operation = f"detach {program.label} from interface {ifindex}"
        self._tell(Request(rt.RTM_DELTFILTER, _filter(program, ifindex)), operation)
        is_clsact = self._qdiscs().get(ifindex) == "clsact"
        if is_clsact and not any(self._filter_names(hook, ifindex) for hook in TcxHook):
            self._tell(Request(rt.RTM_DELQDISC, clsact(ifindex)), operation)

    def _tell(self, request: Request, operation: str, advice: str = "") -> None:
        (code,) = self._netlink.write([request])
        if code:
            raise KernelError(operation, code, advice)


def clsact(ifindex: int) -> bytes:
    """The body of a request about the clsact qdisc, which holds filters of both directions."""
    head = rt.TCMSG.pack(socket.AF_UNSPEC, ifindex, rt.CLSACT_HANDLE, rt.TC_H_CLSACT, 0)
    return head + attribute(rt.TCA_KIND, b"clsact\0")


def _filter(program: Program, ifindex: int) -> bytes:
    """The body of a request about our filter for `program`."""
    which = _LAST_PRIORITY << 16 | socket.htons(ETH_P_ALL)
    head = rt.TCMSG.pack(socket.AF_UNSPEC, ifindex, _HANDLE, PARENTS[_HOOKS[program]], which)
    return head + attribute(rt.TCA_KIND, _BPF)


def _name(body: bytes) -> str:
    """The name of a BPF filter in an RTM_NEWTFILTER; "" for any other filter."""
    found = attributes(body, rt.TCMSG.size)
    if found.get(rt.TCA_KIND) != _BPF:
        return ""
    options = attributes(found.get(rt.TCA_OPTIONS, b""), 0)
    return text_of(options.get(rt.TCA_BPF_NAME, b""))
