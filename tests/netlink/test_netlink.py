# SPDX-License-Identifier: Apache-2.0
"""Netlink without a kernel: messages and dumps."""

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from vxlane.errors import KernelError
from vxlane.netlink.socket import (
    SO_RCVBUFFORCE,
    NetlinkSocket,
    Request,
    attribute,
    attributes,
    nested,
)

DONE, ENTRY, INTERRUPTED = 3, 16, 0x10


class Kernel:
    """Answers each dump with one entry and the end, as interrupted as `dumps` says."""

    def __init__(self, dumps: Iterator[bool]) -> None:
        self._dumps = dumps
        self.asked = 0

    def send(self, _: bytes) -> None:
        """A dump begins."""
        self.asked += 1

    def recv(self, _: int) -> bytes:
        """All of it, in one datagram."""
        flags = INTERRUPTED if next(self._dumps) else 0
        entry = struct.pack("=IHHII", 20, ENTRY, flags, self.asked, 0) + b"body"
        return entry + struct.pack("=IHHIIi", 20, DONE, flags, self.asked, 0, 0)


def asking(interrupted: int) -> tuple[NetlinkSocket, Kernel]:
    """A socket without a kernel behind it, whose first dumps are interrupted."""
    made = NetlinkSocket.__new__(NetlinkSocket)  # its constructor needs root
    kernel = Kernel(number < interrupted for number in range(100))
    made._socket, made._sequence = kernel, 0
    return made, kernel


def test_an_interrupted_dump_is_repeated() -> None:
    """A dump that a change interrupted is read again until one is whole."""
    netlink, kernel = asking(9)
    assert netlink.dump(Request(18, b"")) == [b"body"]
    assert kernel.asked == 10


def test_no_whole_dump_is_an_error() -> None:
    """Ten interrupted dumps are an error: an entry that is missing must not count as gone."""
    netlink, _ = asking(10)
    with pytest.raises(KernelError, match="it changed during each of 10 reads") as raised:
        netlink.dump(Request(18, b""))
    assert raised.value.errno == errno.EINTR


class Echo:
    """Answers each request with its own sequence number, behind the answers to `stale` ones."""

    def __init__(self, *stale: int) -> None:
        self._answers = [*map(_answer, stale)]

    def send(self, sent: bytes) -> None:
        """Requests without attributes, one after the other."""
        for offset in range(0, len(sent), 16):
            self._answers.append(_answer(struct.unpack_from("=IHHII", sent, offset)[3]))

    def recv(self, _: int) -> bytes:
        """One datagram."""
        return self._answers.pop(0)


def _answer(sequence: int) -> bytes:
    entry = struct.pack("=IHHII", 20, ENTRY, 0, sequence, 0) + struct.pack("=I", sequence)
    return entry + struct.pack("=IHHIIi", 20, DONE, 0, sequence, 0, 0)


def echoing(*stale: int, last: int) -> NetlinkSocket:
    """A socket whose last request was number `last`, and whose call then failed."""
    made = NetlinkSocket.__new__(NetlinkSocket)
    made._socket, made._sequence = Echo(*stale), last
    return made


def numbers(*sequences: int) -> list[bytes]:
    """Bodies that `Echo` answers with."""
    return [struct.pack("=I", sequence) for sequence in sequences]


def test_answers_to_an_earlier_call_are_not_taken_for_its_own() -> None:
    """A call that fails for want of memory or buffer leaves some behind."""
    assert echoing(6, 7, last=7).dump(Request(18, b"")) == numbers(8)
    assert echoing(6, 7, last=7).write([Request(18, b"")]) == [0]


def test_sequence_numbers_begin_anew_behind_the_last() -> None:
    """An agent of 10,000 peers has used 32 bits of them after some months."""
    netlink = echoing(last=2**32 - 3)
    found = [netlink.dump(Request(18, b"")) for _ in range(4)]
    assert found == [numbers(2**32 - 2), numbers(2**32 - 1), numbers(1), numbers(2)]


def test_a_user_without_rights_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own word for it would name nothing."""

    class Refusing(socket.socket):
        def setsockopt(self, *option: Any) -> None:
            if option[1] == SO_RCVBUFFORCE:
                raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(KernelError, match=r"open a netlink socket: .*; it needs CAP_NET_ADMIN"):
        NetlinkSocket()


def test_attributes_are_padded_and_nested() -> None:
    """An attribute is padded to four bytes; a nested one is read without its mark."""
    body = nested(4, attribute(1, b"abc"), attribute(2, b"d"))
    assert len(body) == 4 + 8 + 8
    assert body[2:4] == struct.pack("=H", 0x8000 | 4)
    assert attributes(attributes(body, 0)[4], 0) == {1: b"abc", 2: b"d"}
