# SPDX-License-Identifier: Apache-2.0
"""A program on a device for a while, by TCX or by clsact.

`datapath.attach` attaches what is pinned, for good. A probe's program is never pinned.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from vxlane.datapath import syscall
from vxlane.datapath.attach import ETH_P_ALL, PARENTS, Method, clsact
from vxlane.datapath.syscall import TcxHook
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import Intent, NetlinkSocket, Request, attribute


@contextlib.contextmanager
def held(
    method: Method, netlink: NetlinkSocket, program: int, ifindex: int, hook: TcxHook
) -> Iterator[None]:
    """Have `program` there within the block. OSError: the kernel does not do that."""
    if method is Method.TCX:
        link = syscall.link_create(program, ifindex, hook)
        try:
            yield
        finally:
            os.close(link)
        return
    qdisc = clsact(ifindex)
    tell(netlink, Request(rt.RTM_NEWQDISC, qdisc, Intent.ADD))
    try:
        tell(netlink, Request(rt.RTM_NEWTFILTER, _filter(program, ifindex, hook), Intent.ADD))
        yield
    finally:
        tell(netlink, Request(rt.RTM_DELQDISC, qdisc))


def _filter(program: int, ifindex: int, hook: TcxHook) -> bytes:
    which = 1 << 16 | socket.htons(ETH_P_ALL)
    head = rt.TCMSG.pack(socket.AF_UNSPEC, ifindex, 1, PARENTS[hook], which)
    options = attribute(rt.TCA_BPF_FD, rt.U32.pack(program))
    options += attribute(rt.TCA_BPF_NAME, b"probe\0")
    options += attribute(rt.TCA_BPF_FLAGS, rt.U32.pack(rt.TCA_BPF_FLAG_ACT_DIRECT))
    return head + attribute(rt.TCA_KIND, b"bpf\0") + attribute(rt.TCA_OPTIONS, options)


def tell(netlink: NetlinkSocket, request: Request) -> None:
    """Have the kernel do that. OSError: it does not."""
    (code,) = netlink.write([request])
    if code:
        raise OSError(code, os.strerror(code))
