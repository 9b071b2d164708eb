# SPDX-License-Identifier: Apache-2.0
"""`vxlane detach`: undo all that the agent did to this node, alive or dead.

The bypass goes first, for the kernel path is there without it; then, if vxlane made it, the kernel
path too. Each step can be repeated: an undo that was interrupted is finished by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

from vxlane.datapath.attach import Hooks, Method
from vxlane.datapath.bpffs import remove_bpffs
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.datapath.records import Tuple
from vxlane.errors import VxlaneError
from vxlane.host import blackhole, entries, sysctls, vtep
from vxlane.host.conntrack import make_lenient
from vxlane.host.devices import Devices
from vxlane.host.iptables import Iptables
from vxlane.host.nftables import Nftables
from vxlane.host.undo import Undo, UndoFile

log = logging.getLogger(__name__)

_STOP_PATIENCE = 5.0
"""Seconds that the agent gets to end."""


def detach(state: Path) -> None:
    """Undo everything that is recorded in `state`; does nothing where nothing is."""
    if not state.is_dir():
        return
    _stop_agent(state / "agent.pid")
    undo = UndoFile(state)
    devices = Devices()
    try:
        _remove_bypass(state, devices, undo.known)
        if undo.known.device:
            _remove_overlay(devices, undo.known)
        if undo.known.blackhole and blackhole.remove(devices, IPv4Network(undo.known.blackhole)):
            log.info("remove blackhole route %s", undo.known.blackhole)
    finally:
        devices.close()
    sysctls.write(undo.known.sysctls)
    for name, value in undo.known.sysctls.items():
        log.info("set %s back to %s", name, value)
    undo.forget()
    _remove_records(state)


def _stop_agent(pid_file: Path) -> None:
    """End the agent that holds the file's lock, if one does."""
    deadline = time.monotonic() + _STOP_PATIENCE
    with contextlib.suppress(FileNotFoundError), pid_file.open() as file:
        while not _is_free(file.fileno()):
            file.seek(0)
            pid = file.read().strip()
            if pid.isdigit():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)
            if time.monotonic() > deadline:
                raise VxlaneError(f"agent {pid} does not stop; end it and run this again")
            time.sleep(0.05)


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_bypass(state: Path, devices: Devices, undo: Undo) -> None:
    """Detach every program, then unpin everything."""
    pins = pin_directory(state)
    if pins.is_dir():
        Hooks(pins, Method.AUTO, devices.socket).detach_all()
        log.info("detach all programs")
        if "net.netfilter.nf_conntrack_tcp_be_liberal" in undo.sysctls:
            make_lenient(_bypassed(pins))
    remove_bpffs(state / "bpf")


def _bypassed(pins: Path) -> Iterator[Tuple]:
    """The TCP connections that may have been bypassed."""
    try:
        maps = Maps.open(pins)
    except (FileNotFoundError, VxlaneError):
        return
    with maps:
        for flow in maps.flows():
            if flow.tuple.protocol == socket.IPPROTO_TCP and flow.seen_out and flow.seen_in:
                yield flow.tuple


def _remove_overlay(devices: Devices, undo: Undo) -> None:
    """Take the kernel path away: device, routes, rules, subnet.env."""
    if vtep.remove(devices, undo.device):
        log.info("remove device %s", undo.device)
    left = entries.read(devices.socket, 0)
    wanted = entries.changes({}, left, IPv4Network(undo.network))
    entries.write(devices.socket, wanted, left)
    for line in [*map(str, wanted), *Iptables().remove(), *Nftables().remove()]:
        log.info("%s", line)
    Path(undo.subnet_file).unlink(missing_ok=True)
    log.info("remove %s", undo.subnet_file)


def _remove_records(state: Path) -> None:
    shutil.rmtree(state / "pods", ignore_errors=True)
    for name in ("agent.json", "agent.sock", "nodes.json", "agent.pid"):
        (state / name).unlink(missing_ok=True)
    for note in state.glob("programs-*.json"):
        note.unlink()
    with contextlib.suppress(OSError):
        (state / "bpf").rmdir()
        state.rmdir()
