# SPDX-License-Identifier: Apache-2.0
"""Kernel settings that the overlay and the bypass depend on.

Owns the values and their reasons. The caller remembers the values from before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vxlane.errors import KernelError

BRIDGE_NETFILTER = "net.bridge.bridge-nf-call-iptables"
FORWARDING = {"net.ipv4.ip_forward": "1"}

CONNTRACK = {
    # conntrack does not see bypassed segments move TCP windows, and kube-proxy drops INVALID.
    "net.netfilter.nf_conntrack_tcp_be_liberal": "1",
    "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst": "1",
}

_ROOT = Path("/proc/sys")
_OF_THE_HOST = Path("/host/proc/sys")
"""Where an unprivileged container has the host's /proc/sys mounted, since its own is read-only."""


def read(name: str) -> str | None:
    """A setting's value; None where this kernel (or this network namespace) does not have it."""
    try:
        return _path(name).read_text().strip()
    except OSError:
        return None


def differing(wanted: Mapping[str, str]) -> dict[str, str]:
    """The settings that differ from `wanted`, with their present values.

    A setting that this kernel (or this network namespace) does not have is left out: without
    connection tracking a bypass has no state to disturb.
    """
    found = {}
    for name, value in wanted.items():
        actual = read(name)
        if actual is not None and actual != value:
            found[name] = actual
    return found


def write(values: Mapping[str, str]) -> None:
    """Set each setting."""
    for name, value in values.items():
        try:
            _path(name, _writable()).write_text(value)
        except OSError as error:
            advice = f"set it on the host: sysctl -w {name}={value}"
            raise KernelError(f"set sysctl {name}={value}", error.errno or 0, advice) from error


def _writable() -> Path:
    return _OF_THE_HOST if _OF_THE_HOST.joinpath("net").is_dir() else _ROOT


def _path(name: str, root: Path | None = None) -> Path:
    """As sysctl(8) has it: a name with slashes keeps its dots, which a device's name may have."""
    return (root or _ROOT) / (name if "/" in name else name.replace(".", "/"))
