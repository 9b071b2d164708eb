# SPDX-License-Identifier: Apache-2.0
"""Netlink in bulk: thousands of entries dumped or written with a handful of system calls.

pyroute2 makes devices and reads addresses. But it takes 70 us to decode a route and 250 us for a
round trip: with 5,000 peers a second of CPU for every read of the kernel. Here a message is a
`struct` and a slice. Owns the framing only; callers know the content. Imports errors.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vxlane.errors import KernelError
from vxlane.netlink import nfnetlink as nf

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_ATTRIBUTE_TYPE = 0x3FFF  # NLA_TYPE_MASK: without the nested and byte-order flags
_NESTED = 0x8000  # NLA_F_NESTED

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
SO_RCVBUFFORCE = 33
"""From asm-generic/socket.h; Python has no name for it."""

_LAST_SEQUENCE = 0xFFFFFFFF
"""With 10,000 peers it is reached in some months."""
_BUFFER = 1 << 20
_LUMP = 128
"""Requests in a system call. Each may fail, and all answers must fit the receive buffer."""
_DUMP_TRIES = 10
_BUSY = f"it changed during each of {_DUMP_TRIES} reads; it is read again later"


class Intent(enum.IntEnum):
    """Flags in a request's header."""

    PLAIN = 0
    ADD = 0x600  # NLM_F_CREATE | NLM_F_EXCL
    PUT = 0x500  # NLM_F_CREATE | NLM_F_REPLACE


@dataclass(frozen=True, slots=True)
class Request:
    """One netlink request; `body` is the family's header and its attributes."""

    kind: int
    body: bytes
    intent: Intent = Intent.PLAIN


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message as received."""

    kind: int
    flags: int
    sequence: int
    body: bytes


def group_mask(*groups: int) -> int:
    """The multicast `groups` (RTNLGRP_*, NFNLGRP_*) as the address that a socket is bound to."""
    return sum(1 << group - 1 for group in groups)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) & 3)


def nested(kind: int, *members: bytes) -> bytes:
    """One attribute made of attributes, marked as such: nfnetlink insists on the mark."""
    return attribute(kind | _NESTED, b"".join(members))


def string_attribute(kind: int, text: str) -> bytes:
    """One attribute that holds a string, with the NUL that the kernel expects behind it."""
    return attribute(kind, text.encode() + b"\0")


def text_of(value: bytes) -> str:
    """The string in an attribute; the kernel's names are bytes, and may not be UTF-8."""
    return value.rstrip(b"\0").decode(errors="replace")


def be32_of(found: Mapping[int, bytes], kind: int) -> int:
    """A number among attributes of nfnetlink, which has the network's byte order; 0: not there."""
    return int.from_bytes(found.get(kind, b""), "big")


def attributes(body: bytes, offset: int) -> dict[int, bytes]:
    """The attributes of `body` after its header of `offset` bytes, by type."""
    return dict(attribute_list(body, offset))


def attribute_list(body: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The same in their order, for what holds several of one type."""
    end = len(body) - 3
    while offset < end:
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < 4:
            break
        yield kind & _ATTRIBUTE_TYPE, body[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def split(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        yield Message(kind, flags, sequence, datagram[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


class NetlinkSocket:
    """Dumps and changes in the kernel, in the network namespace of the thread that made it."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        # Kernel-side filters of dumps (by device, by table) work in strict mode only.
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        except PermissionError as error:
            self.close()
            needs = "it needs CAP_NET_ADMIN"
            raise KernelError("open a netlink socket", errno.EPERM, needs) from error
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def dump(self, request: Request) -> list[bytes]:
        """The body of every entry that `request` selects, as they were at one moment.

        A change of what is dumped interrupts a dump, which is then repeated. KernelError (EINTR):
        no dump was whole; what was read may lack entries, and must not be taken for all.
        """
        for _ in range(_DUMP_TRIES):
            bodies, interrupted = self._dump(request)
            if not interrupted:
                return bodies
        raise KernelError(f"dump of netlink type {request.kind}", errno.EINTR, _BUSY)

    def _dump(self, request: Request) -> tuple[list[bytes], bool]:
        first = self._send([request], _NLM_F_DUMP)
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for message in self._receive(first):
                interrupted |= bool(message.flags & _NLM_F_DUMP_INTR)
                if message.kind in {_NLMSG_ERROR, _NLMSG_DONE}:
                    if code := _code(message):
                        raise KernelError(f"dump of netlink type {request.kind}", code)
                    return bodies, interrupted
                bodies.append(message.body)

    def write(self, requests: Sequence[Request]) -> list[int]:
        """Carry out all `requests` in order; 0 or the errno of each. No failure stops the next."""
        codes: list[int] = []
        for start in range(0, len(requests), _LUMP):
            lump = requests[start : start + _LUMP]
            # The kernel answers each failure. So only the last request must ask for an answer.
            first = self._send(lump, 0, acknowledged=len(lump) - 1)
            outcome = dict.fromkeys(range(first, first + len(lump)), 0)
            while not self._collect(outcome, first + len(lump) - 1):
                pass
            codes += outcome.values()
        return codes

    def _collect(self, outcome: dict[int, int], last: int) -> bool:
        """Note the failures of one datagram in `outcome`; whether `last` was answered."""
        done = False
        for message in self._receive(last - len(outcome) + 1, len(outcome)):
            outcome[message.sequence] = _code(message)
            done |= message.sequence == last
        return done

    def transact(self, requests: Sequence[Request], resource: int) -> int:
        """Carry out all `requests` of an nfnetlink subsystem (`resource`) or none of them.

        The answer is 0, or the errno of the first that failed. Kernels before 6.10 acknowledge
        no end of a batch, so the last request of it is asked for an answer.
        """
        ends = nf.NFGENMSG.pack(socket.AF_UNSPEC, 0, resource)
        begin, end = Request(nf.NFNL_MSG_BATCH_BEGIN, ends), Request(nf.NFNL_MSG_BATCH_END, ends)
        first = self._send([begin, *requests, end], 0, acknowledged=len(requests))
        while True:
            for message in self._receive(first, len(requests) + 1):
                code = _code(message)
                if code or message.sequence == first + len(requests):
                    return code

    def request(self, requests: Sequence[Request]) -> list[bytes | int]:
        """The answer to each of `requests` in order: its body, or the errno of a refusal."""
        answers: list[bytes | int] = []
        for start in range(0, len(requests), _LUMP):
            lump = requests[start : start + _LUMP]
            first = self._send(lump, 0)
            found: dict[int, bytes | int] = {}
            while len(found) < len(lump):
                for message in self._receive(first, len(lump)):
                    failed = message.kind == _NLMSG_ERROR
                    found[message.sequence] = _code(message) if failed else message.body
            answers += [found[first + i] for i in range(len(lump))]
        return answers

    def _send(
        self, requests: Sequence[Request], flags: int, *, acknowledged: int | None = None
    ) -> int:
        """Send `requests` in one system call; the sequence number of the first.

        `acknowledged`: the place of the one that is answered after a success too.
        """
        if self._sequence + len(requests) > _LAST_SEQUENCE:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += len(requests)
        parts = []
        for sequence, request in enumerate(requests, start=first):
            ack = _NLM_F_ACK if sequence - first == acknowledged else 0
            bits = _NLM_F_REQUEST | flags | request.intent | ack
            length = _HEADER.size + len(request.body)
            parts += [_HEADER.pack(length, request.kind, bits, sequence, 0), request.body]
        self._socket.send(b"".join(parts))
        return first

    def _receive(self, first: int, count: int = 1) -> Iterator[Message]:
        """What answers these sequence numbers in the next datagram. An answer to others is left of
        a call that failed: its buffer was full, or the agent had no memory.
        """
        wanted = range(first, first + count)
        return (each for each in split(self._socket.recv(_BUFFER)) if each.sequence in wanted)


def _code(message: Message) -> int:
    """The errno (positive) that an error or a done message carries; 0 for success."""
    if message.kind not in {_NLMSG_ERROR, _NLMSG_DONE}:
        return errno.EPROTO
    return -int(struct.unpack_from("=i", message.body)[0]) if len(message.body) >= 4 else 0
