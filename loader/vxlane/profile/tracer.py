# SPDX-License-Identifier: Apache-2.0
"""The process that follows packets (`tracing`), as its parent sees it: begun, and asked at the end.

Knows what that process is told and answers, and makes a sentence of whatever it lacks.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from vxlane.datapath import compiler
from vxlane.errors import CompileError, ContractError
from vxlane.profile import btf
from vxlane.profile.legs import TRACEPOINTS, Place, defines
from vxlane.util import scratch

_MEMBERS = {
    "sk_buff": ("cb", "dev", "len", "head", "end", "network_header", "protocol", "sk"),
    "net_device": ("ifindex", "nd_net"),
    "net": ("ns.inum",),
    "skb_shared_info": ("gso_segs",),
    "tcp_skb_cb": ("tcp_gso_segs",),
    "sock": (
        "__sk_common.skc_daddr",
        "__sk_common.skc_net",
        "__sk_common.skc_rcv_saddr",
        "__sk_common.skc_state",
        "sk_receive_queue.prev",
    ),
}
"""What packets.c reads of the kernel's structs, whose layout differs from kernel to kernel."""

_END_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose packets are followed, in the network namespace of the calling process."""

    veths: Collection[int]
    """Ifindexes of the pods' host ends."""
    nics: Collection[int]
    pods: Collection[IPv4Address]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of packets, as tracing.py answers it."""

    legs: list[dict[str, Any]] = field(default_factory=list)
    retransmits: list[dict[str, Any]] = field(default_factory=list)


class Tracer:
    """Follows packets from `begin` to `end`. What fails on the way is in `missing`: sentences."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self._child: subprocess.Popen[str] | None = None

    def begin(self, subject: Subject) -> None:
        """Return when packets are followed, or can't be."""
        try:
            request = {
                "defines": _defines(subject),
                "devices": dict.fromkeys(subject.veths, Place.POD)
                | dict.fromkeys(subject.nics, Place.NIC),
                "pods": [str(address) for address in subject.pods],
            }
            # If this is interrupted the child ends first, and then its scratch directory goes.
            with (
                scratch.directory(compiler.SCRATCH) as made,
                contextlib.ExitStack() as interrupted,
            ):
                interrupted.callback(self.close)
                lacking = self._start(request | {"scratch": str(made)})["missing"]
                interrupted.pop_all()
        except (OSError, ContractError, CompileError) as error:
            self.missing.append(f"packets can't be followed: {error}")
        else:
            self.missing += [
                f"this kernel has no tracepoint {name}: {TRACEPOINTS[name]}" for name in lacking
            ]

    def end(self) -> Seen:
        """Stop following; what was seen."""
        if self._child is None:
            return Seen()
        try:
            said, _ = self._child.communicate(timeout=_END_SECONDS)
            return Seen(**json.loads(said))
        except (ValueError, subprocess.TimeoutExpired):
            self.missing.append("what was seen of packets is lost: the process with it has ended")
            return Seen()
        finally:
            self.close()

    def close(self) -> None:
        """End the process, if there is one; the kernel detaches what it had attached."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self, request: Mapping[str, Any]) -> dict[str, Any]:
        command = [sys.executable, "-I", "-m", "vxlane.profile.tracing"]
        pipe = subprocess.PIPE
        # A session of its own: Ctrl-C is for the profile, which then asks what was seen so far.
        self._child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        assert self._child.stdin
        assert self._child.stdout
        with contextlib.suppress(BrokenPipeError):  # it has ended, and said why
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
        if answer := self._child.stdout.readline():
            answered: dict[str, Any] = json.loads(answer)
            return answered
        _, said = self._child.communicate()
        status, self._child = self._child.returncode, None
        raise CompileError(compiler.sentence(status, said))


def _defines(subject: Subject) -> dict[str, int]:
    """Raises ContractError where the kernel does not tell its structs."""
    try:
        kernel = btf.Btf(btf.KERNEL.read_bytes())
    except FileNotFoundError:
        msg = f"the kernel has no {btf.KERNEL}; it was built without CONFIG_DEBUG_INFO_BTF"
        raise ContractError(msg) from None
    offsets = {
        f"{struct}_{path.removeprefix('__sk_common.').replace('.', '_')}".upper(): offset
        for struct, paths in kernel.offsets(_MEMBERS).items()
        for path, offset in paths.items()
    }
    sizes = {
        "MAX_DEVICES": len(subject.veths) + len(subject.nics) + 1,
        "MAX_PODS": len(subject.pods) + 1,
        "NETNS": Path("/proc/self/ns/net").stat().st_ino,
    }
    return offsets | sizes | defines()
