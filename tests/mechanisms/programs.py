# SPDX-License-Identifier: Apache-2.0
"""The smallest programs there are: what they say of every packet, on a device of a pod's."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct

from standing import entered

from vxlane.datapath import syscall
from vxlane.datapath.syscall import TcxHook

_PROG_LOAD, _LINK_CREATE = 5, 28
_SCHED_CLS, _XDP = 3, 6  # BPF_PROG_TYPE_*
_BPF_XDP, _XDP_FLAGS_SKB_MODE = 37, 2
_XDP_DROP, _TC_ACT_SHOT = 1, 2
_EXIT = struct.pack("=BBhi", 0x95, 0, 0, 0)


def _load(kind, verdict):
    """A program that answers `verdict` to each packet: r0 = verdict; exit."""
    code = struct.pack("=BBhi", 0xB7, 0, 0, verdict) + _EXIT
    text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attr = struct.pack("=IIQQ", kind, 2, ctypes.addressof(text), ctypes.addressof(licence))
    return syscall._bpf(_PROG_LOAD, attr)[0]


@contextlib.contextmanager
def xdp_drop(lab, pod, flags=_XDP_FLAGS_SKB_MODE):
    """Drop all that comes to a pod's eth0, by generic XDP."""
    with _attached(lab, pod, _load(_XDP, _XDP_DROP), _BPF_XDP, flags):
        yield


@contextlib.contextmanager
def tc_drop(lab, pod):
    """Drop all that comes to a pod's eth0, by a TCX program."""
    with _attached(lab, pod, _load(_SCHED_CLS, _TC_ACT_SHOT), TcxHook.INGRESS, 0):
        yield


@contextlib.contextmanager
def _attached(lab, pod, program, place, flags):
    with entered(lab.netns(pod)):
        attr = struct.pack("=IIII", program, socket.if_nametoindex("eth0"), place, flags)
        link = syscall._bpf(_LINK_CREATE, attr)[0]
    try:
        yield
    finally:
        os.close(link)
        os.close(program)
