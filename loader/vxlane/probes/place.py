# SPDX-License-Identifier: Apache-2.0
"""The place where probes run: a thread with two network namespaces of its own, joined by veths.

        far ───── wire [node] port ───── pod

`far` and `pod` are in one namespace, `wire` and `port` in the other, as on a node with one pod.
Nothing here has a name outside. The kernel removes all of it with the thread, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from vxlane.datapath import loose, syscall
from vxlane.datapath.attach import ETH_P_ALL, Method
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import Intent, NetlinkSocket, Request, attribute, attributes
from vxlane.probes.attach import held, tell

T = TypeVar("T")
Closable = TypeVar("Closable", NetlinkSocket, socket.socket)

_HERE = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
_PACKET_OUTGOING = 4
_ARRIVES_WITHIN = 0.2
"""Seconds. A veth hands a frame over within the sender's system call or the softirq after it."""
_VXLAN_PORT = 8472
_PEER_MAC = bytes.fromhex("02766c616e02")
_libc = ctypes.CDLL(None, use_errno=True)

MARKER = b"vxlane probe"
"""Ends the frames of probes."""


class Place:
    """The namespaces, their devices and what is attached to these. Made and used by one thread."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._there, self._home = self._namespace(), self._namespace()
        self._netlink = self._closed_at_end(NetlinkSocket())
        for near, far in (("wire", "far"), ("port", "pod")):
            self._make_veth(near, far)
        self.wire, self.port = map(socket.if_nametoindex, ("wire", "port"))
        with self._entered():
            self.pod = socket.if_nametoindex("pod")
            self._netlink_there = self._closed_at_end(NetlinkSocket())
            for device in ("far", "pod"):
                ready = _up(socket.if_nametoindex(device))
                tell(self._netlink_there, Request(rt.RTM_NEWLINK, ready))
            self._sender = self._closed_at_end(_tap("far"))

    def close(self) -> None:
        """Leave nothing open; the namespaces go with the thread."""
        self._open.close()

    @contextlib.contextmanager
    def tap(self, device: str) -> Iterator[socket.socket]:
        """A socket that receives what comes in at `pod` or `port`."""
        with self._entered() if device == "pod" else contextlib.nullcontext():
            tap = _tap(device)
        with tap:
            yield tap

    def send(self, frame: bytes) -> None:
        """Put a frame into `far`, so that it comes in at `wire`."""
        self._sender.send(frame)

    def received_by_pod(self) -> int:
        """The packets that `pod` has counted as received."""
        body = rt.IFINFOMSG.pack(socket.AF_UNSPEC, 0, self.pod, 0, 0)
        (found,) = self._netlink_there.request([Request(rt.RTM_GETLINK, body)])
        assert isinstance(found, bytes)
        statistics = attributes(found, rt.IFINFOMSG.size)[rt.IFLA_STATS64]
        return int(struct.unpack_from("=Q", statistics)[0])

    @contextlib.contextmanager
    def attached(
        self, *instructions: bytes, device: str = "wire", method: Method | None = None
    ) -> Iterator[None]:
        """Have a program at the ingress of `wire` or `pod`, or at the egress of another device.

        OSError: the verifier refuses it, or the kernel has no such method.
        """
        program = loose.prog_load(b"".join(instructions))
        is_there = device == "pod"
        netlink = self._netlink_there if is_there else self._netlink
        is_entrance = device in {"wire", "pod"}
        hook = syscall.TcxHook.INGRESS if is_entrance else syscall.TcxHook.EGRESS
        ifindex = self.pod if is_there else socket.if_nametoindex(device)
        chosen = method or (Method.TCX if syscall.has_tcx() else Method.CLSACT)
        try:
            with contextlib.ExitStack() as stack:
                with self._entered() if is_there else contextlib.nullcontext():
                    stack.enter_context(held(chosen, netlink, program, ifindex, hook))
                yield
        finally:
            os.close(program)

    @contextlib.contextmanager
    def bridge(self) -> Iterator[None]:
        """Have `wire` and `port` be ports of a bridge."""
        kind = attribute(rt.IFLA_INFO_KIND, b"bridge\0")
        self._change(0, _name("bridge") + attribute(rt.IFLA_LINKINFO, kind), Intent.ADD)
        bridge = socket.if_nametoindex("bridge")
        for port in (self.wire, self.port):
            self._change(port, attribute(rt.IFLA_MASTER, rt.U32.pack(bridge)), Intent.PLAIN)
        yield
        tell(self._netlink, Request(rt.RTM_DELLINK, _up(bridge)))

    def set_neighbour(self, address: bytes, mac: bytes) -> None:
        """Have an IPv4 neighbour at `port`."""
        body = rt.NDMSG.pack(socket.AF_INET, self.port, rt.NUD_PERMANENT, 0, rt.RTN_UNICAST)
        body += attribute(rt.NDA_DST, address) + attribute(rt.NDA_LLADDR, mac)
        tell(self._netlink, Request(rt.RTM_NEWNEIGH, body, Intent.PUT))

    @contextlib.contextmanager
    def overlay(self, ports: tuple[int, int]) -> Iterator[str]:
        """Have a VXLAN device whose one peer is at `port`, with these source ports."""
        own, peer = socket.inet_aton("10.255.255.1"), socket.inet_aton("10.255.255.2")
        address = rt.IFADDRMSG.pack(socket.AF_INET, 24, 0, rt.RT_SCOPE_UNIVERSE, self.port)
        address += attribute(rt.IFA_LOCAL, own)
        tell(self._netlink, Request(rt.RTM_NEWADDR, address, Intent.PUT))
        self.set_neighbour(peer, _PEER_MAC)
        data = attribute(rt.IFLA_VXLAN_ID, rt.U32.pack(1))
        data += attribute(rt.IFLA_VXLAN_GROUP, peer) + attribute(rt.IFLA_VXLAN_LOCAL, own)
        data += attribute(rt.IFLA_VXLAN_PORT_RANGE, struct.pack("!HH", *ports))
        data += attribute(rt.IFLA_VXLAN_PORT, struct.pack("!H", _VXLAN_PORT))
        info = attribute(rt.IFLA_INFO_KIND, b"vxlan\0") + attribute(rt.IFLA_INFO_DATA, data)
        self._change(0, _name("overlay") + attribute(rt.IFLA_LINKINFO, info), Intent.ADD)
        yield "overlay"
        overlay = socket.if_nametoindex("overlay")
        tell(self._netlink, Request(rt.RTM_DELLINK, _up(overlay)))

    def _make_veth(self, near: str, far: str) -> None:
        there = attribute(rt.IFLA_NET_NS_FD, rt.U32.pack(self._there))
        # veth refuses to come up before it has its other end.
        down = rt.IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        peer = attribute(rt.VETH_INFO_PEER, down + _name(far) + there)
        info = attribute(rt.IFLA_INFO_KIND, b"veth\0") + attribute(rt.IFLA_INFO_DATA, peer)
        self._change(0, _name(near) + attribute(rt.IFLA_LINKINFO, info), Intent.ADD)

    def _change(self, ifindex: int, wanted: bytes, intent: Intent) -> None:
        tell(self._netlink, Request(rt.RTM_NEWLINK, _up(ifindex) + wanted, intent))

    def _namespace(self) -> int:
        """Enter a new namespace; a descriptor of it."""
        if _libc.unshare(_CLONE_NEWNET):
            raise _last_error()
        # Else the devices' own packets of IPv6 come in between.
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        made = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        self._open.callback(os.close, made)
        return made

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """Be where `far` and `pod` are."""
        _enter(self._there)
        try:
            yield
        finally:
            _enter(self._home)

    def _closed_at_end(self, opened: Closable) -> Closable:
        self._open.callback(opened.close)
        return opened


def run(function: Callable[[Place], T]) -> T:
    """What `function` answers in a new place. OSError: none can be made (root is needed)."""

    def inside() -> T:
        with contextlib.closing(Place()) as place:
            return function(place)

    with ThreadPoolExecutor(1, thread_name_prefix="probes") as thread:
        return thread.submit(inside).result()


def arrived(tap: socket.socket) -> bytes | None:
    """The next frame of a probe that comes in; None: none does."""
    return arrived_as(tap)[0]


def arrived_as(tap: socket.socket) -> tuple[bytes | None, int]:
    """The same with the type that the kernel gives it (PACKET_* of linux/if_packet.h)."""
    while select.select([tap], [], [], _ARRIVES_WITHIN)[0]:
        frame, address = tap.recvfrom(1 << 16)
        if address[2] != _PACKET_OUTGOING and frame.endswith(MARKER):
            return bytes(frame), address[2]
    return None, 0


def _tap(device: str) -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    tap.bind((device, ETH_P_ALL))
    return tap


def _up(ifindex: int) -> bytes:
    return rt.IFINFOMSG.pack(socket.AF_UNSPEC, 0, ifindex, rt.IFF_UP, rt.IFF_UP)


def _name(name: str) -> bytes:
    return attribute(rt.IFLA_IFNAME, name.encode() + b"\0")


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise _last_error()


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
