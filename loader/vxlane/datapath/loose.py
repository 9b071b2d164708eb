# SPDX-License-Identifier: Apache-2.0
"""Loads programs by bpf(2), runs them over a frame, and reads names of programs.

The part of bpf(2) that `syscall` leaves out.
"""

from __future__ import annotations

import ctypes
import os
import struct

from vxlane.datapath.syscall import _address, _bpf, object_info
from vxlane.errors import KernelError

_PROG_LOAD, _PROG_TEST_RUN, _PROG_BY_ID = 5, 10, 13
_SCHED_CLS = 3
_FRAME = 4096


def program_name(number: int) -> str:
    """The name of the program with this id. Empty: it has none, or is gone."""
    try:
        descriptor = _bpf(_PROG_BY_ID, struct.pack("=III", number, 0, 0))[0]
    except OSError:
        return ""
    try:
        info = object_info(descriptor, 80)  # struct bpf_prog_info as far as its name
    except KernelError:
        return ""
    finally:
        os.close(descriptor)
    return info[64:80].rstrip(b"\0").decode(errors="replace")


def prog_load(
    instructions: bytes, name: str = "", log: ctypes.Array[ctypes.c_char] | None = None
) -> int:
    """Load a TC program of struct bpf_insn's; raises OSError where the verifier refuses it.

    The kernel keeps 15 bytes of the name. The verifier writes what it sees to `log`.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    words = (1, len(log), _address(log)) if log else (0, 0, 0)
    places = _address(code), _address(licence)
    sizes = _SCHED_CLS, len(instructions) // 8
    attr = struct.pack("=IIQQIIQII16s", *sizes, *places, *words, 0, 0, name.encode()[:15])
    return _bpf(_PROG_LOAD, attr)[0]


def prog_test_run(
    program: int, frame: bytes, repeat: int = 1, context: bytes = b""
) -> tuple[int, bytes, int]:
    """Run a program over a frame, `repeat` times over the same skb.

    Returns what the program returned, the frame after it, and the nanoseconds of one run. `context`
    is a struct __sk_buff with the skb's other fields.
    """
    given, taken = (
        ctypes.create_string_buffer(frame, len(frame)),
        ctypes.create_string_buffer(_FRAME),
    )
    places = _address(given), _address(taken)
    attr = struct.pack("=IIIIQQII", program, 0, len(frame), _FRAME, *places, repeat, 0)
    if context:
        about = ctypes.create_string_buffer(context, len(context))
        attr += struct.pack("=IIQ", len(context), 0, _address(about))
    done = _bpf(_PROG_TEST_RUN, attr)[1]
    _, answer, _, size = struct.unpack_from("=IiII", done)
    return answer, taken.raw[:size], struct.unpack_from("=I", done, 36)[0]
