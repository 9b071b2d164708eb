# SPDX-License-Identifier: Apache-2.0
"""`vxlane detach`: remove the bypass from this node, whether its agent lives or not.

The kernel path stays: pods need it, and it is complete without the bypass. With `network` it is
removed, too, if vxlane made it and nothing uses it. Each step can be repeated, so a detach that was
interrupted is finished by the next one.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from ipaddress import IPv4Network
from pathlib import Path

from vxlane.agent import sole, steering
from vxlane.datapath.attach import Hooks, Method
from vxlane.datapath.bpffs import remove_bpffs
from vxlane.datapath.programs import pin_directory
from vxlane.errors import VxlaneError
from vxlane.host import blackhole, entries, own_tables, sysctls, users, vtep
from vxlane.host.devices import Devices
from vxlane.host.iptables import Iptables
from vxlane.host.nftables import Nftables
from vxlane.host.undo import Undo, UndoFile
from vxlane.util.places import KERNEL

log = logging.getLogger(__name__)

_FILES = (
    "agent.json",
    "agent.sock",
    "answers.json",
    "compile-trace.log",
    "compile.log",
    sole.NEXT,
    "nodes.json",
    "pods",
    steering.FILE,
    "tracer.lock",
    "undo.unreadable",
)


def detach(state: Path, *, network: bool = False) -> None:
    """End the agent of `state` and remove its bypass; with `network` also the kernel path.

    Does nothing if nothing is there to remove, and says so. VxlaneError, before a change is made:
    something uses the kernel path that was to be removed.
    """
    if not state.is_dir():
        log.info("leave all as it is: there is no state directory %s", state)
        return
    undo = UndoFile(state)
    devices = Devices()
    try:
        if network:
            _check_unused(devices, undo.known)
        sole.stop(state)
        # An agent that its service manager starts again must not meet a half of this.
        with sole.sole_agent(state):
            _remove_bypass(state, devices)
            _remove_tables(undo)
            if network:
                _remove_network(devices, undo.known)
            _tell_sysctls(undo.known)
            _remove_files(state, undo, keeps_network=not network and bool(undo.known.network))
    finally:
        devices.close()


def _check_unused(devices: Devices, undo: Undo) -> None:
    """VxlaneError if pods or another backend use the kernel path that vxlane made."""
    if not undo.network:
        return
    advice = "leave --network out to remove the bypass alone"
    if owner := users.owner():
        raise VxlaneError(f"{owner} keeps this node's network now; {advice}")
    if pods := users.pods(devices, IPv4Network(undo.network)):
        some = ", ".join(pods[:3]) + (", ..." if len(pods) > 3 else "")
        raise VxlaneError(f"pods use this node's network ({some}); drain the node, or {advice}")


def _remove_bypass(state: Path, devices: Devices) -> None:
    """Detach every program, then unpin everything."""
    # Filters of clsact stay without their pins, and those of another contract version have others.
    Hooks(pin_directory(state), Method.AUTO, devices.socket).detach_all()
    log.info("detach all programs")
    remove_bpffs(state / "bpf")


def _remove_tables(undo: UndoFile) -> None:
    """Let conntrack see the tunnel's packets again, and remove the rule for the copies."""
    for table in filter(None, (undo.known.notrack, undo.known.copies)):
        if own_tables.remove(table):
            log.info("remove nftables table ip %s", table)
    undo.note(notrack="", copies="")


def _remove_network(devices: Devices, undo: Undo) -> None:
    """Remove the kernel path if vxlane made it: device, routes, rules, subnet.env."""
    if undo.blackhole and blackhole.remove(devices, IPv4Network(undo.blackhole)):
        log.info("remove blackhole route %s", undo.blackhole)
    if not undo.network:
        log.info("leave the kernel path: it was not made by vxlane")
        return
    if vtep.remove(devices, undo.device):
        log.info("remove device %s", undo.device)
    left = entries.read(devices.socket, 0)
    wanted = entries.changes({}, left, IPv4Network(undo.network))
    entries.write(devices.socket, wanted, left)
    for line in [*map(str, wanted), *Iptables().remove(), *Nftables().remove()]:
        log.info("%s", line)
    subnet_file = Path(undo.subnet_file)
    subnet_file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # Somebody else's files are in it.
        subnet_file.parent.rmdir()
    log.info("remove %s", subnet_file)


def _tell_sysctls(undo: Undo) -> None:
    """Log the settings that stay as they are, because pods depend on them by now.

    Without ip_forward pods have no network. Conntrack has not seen the windows of connections that
    were bypassed, so without be_liberal they would be INVALID for as long as they live. kube-proxy
    leaves out its rule for INVALID packets if be_liberal is set when it starts.
    """
    for name, before in undo.sysctls.items():
        if sysctls.differing({name: before}):
            log.info("leave %s as it is; it was %s: sysctl -w %s=%s", name, before, name, before)


def _remove_files(state: Path, undo: UndoFile, *, keeps_network: bool) -> None:
    """Remove the agent's files, except the note of how to remove a kernel path that stays."""
    for path in (*(state / name for name in _FILES), *state.glob("programs-*.json")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if keeps_network:
        log.info("leave the kernel path: device, routes, rules; --network removes them too")
        return
    undo.forget()
    # Another agent of this machine tries the kernel anew.
    KERNEL.unlink(missing_ok=True)
    for directory in (state / "bpf", state, KERNEL.parent):
        with contextlib.suppress(OSError):
            directory.rmdir()
