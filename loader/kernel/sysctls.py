"""Kernel settings that the overlay and the bypass depend on.

Owns their values and why; remembering what they were before is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vxlane.loader.errors import KernelError

FORWARDING = {"net.ipv4.ip_forward": "1"}

CONNTRACK = {
    # Bypassed segments move TCP windows that conntrack does not see; kube-proxy drops INVALID.
    "net.netfilter.nf_conntrack_tcp_be_liberal": "1",
    "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst": "1",
}

_ROOT = Path("/proc/sys")


def apply(wanted: Mapping[str, str]) -> dict[str, str]:
    """Make each setting so; those that had to be changed, with their old values.

    A setting that this kernel (or this network namespace) does not have is left out: without
    connection tracking there is no state for a bypass to disturb.
    """
    changed = {}
    for name, value in wanted.items():
        path = _path(name)
        try:
            was = path.read_text().strip()
            if was != value:
                path.write_text(value)
                changed[name] = was
        except FileNotFoundError:
            continue
        except OSError as error:
            raise KernelError(f"set sysctl {name}={value}", error.errno or 0) from error
    return changed


def missing(wanted: Mapping[str, str]) -> list[str]:
    """The settings that are not there to be set."""
    return [name for name in wanted if not _path(name).exists()]


def _path(name: str) -> Path:
    return _ROOT / name.replace(".", "/")
