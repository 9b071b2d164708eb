# SPDX-License-Identifier: Apache-2.0
"""Sysctls, peers' entries and rules of the kernel path, kept as they should be.

Each keeper compares, changes the difference, and logs one line for each change with its reason.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network

from vxlane.errors import KernelError
from vxlane.host import entries, sysctls
from vxlane.host.entries import Entries, FdbEntry, Key, Neighbour, Route
from vxlane.host.events import Events
from vxlane.host.firewall import Firewall, Policy
from vxlane.host.iptables import Iptables
from vxlane.host.nftables import Nftables
from vxlane.host.undo import UndoFile
from vxlane.netlink.socket import NetlinkSocket
from vxlane.overlay.desired import Path, entries_of
from vxlane.util.difference import difference
from vxlane.util.dirty import Dirty
from vxlane.util.log_lines import log_lines

log = logging.getLogger(__name__)

_AT_A_TIME = 1000
"""Entries decoded in one go; 5 ms."""


def apply_sysctls(wanted: Mapping[str, str], undo: UndoFile) -> None:
    """Set the sysctls that differ. The old values are noted first, for `vxlane detach`."""
    if before := sysctls.differing(wanted):
        undo.note_sysctls(before)
        sysctls.write({name: wanted[name] for name in before})
        for name, value in before.items():
            log.info("set %s to %s: was %s", name, wanted[name], value)


class EntryKeeper:
    """Keeps neighbours, FDB entries and routes as they should be, and remembers them.

    After a read of the kernel everything is compared, otherwise only the paths that have changed.
    With 10,000 peers that takes 2 ms instead of 30.
    """

    def __init__(self, netlink: NetlinkSocket) -> None:
        self._netlink = netlink
        self.actual: Entries = {}
        """The kernel's entries as they were last read or written, or as an event had them."""
        self._applied: Sequence[Path] = ()
        """The paths that `actual` agrees with."""
        self._must_compare = True

    def read(self, device: int) -> set[Key]:
        """Read all entries of `device` (ifindex). Returns the keys of those that have changed."""
        before, self.actual = self.actual, entries.read(self._netlink, device)
        self._must_compare = True
        return {key for key, _ in before.items() ^ self.actual.items()}

    def resync(self, device: int) -> Iterator[Dirty]:
        """Compare with the kernel's entries, one kind after the other and some at a time."""
        for kind in (Route, Neighbour, FdbEntry):
            known = {key: e for key, e in self.actual.items() if isinstance(e, kind)}
            bodies = entries.listed(self._netlink, device, kind)
            found: Entries = {}
            for start in range(0, len(bodies), _AT_A_TIME):
                found |= entries.parsed(bodies[start : start + _AT_A_TIME], device, kind)
                yield Dirty(0)
            # If an entry changed during the dump, its event has updated `actual`.
            others = found.items() ^ known.items() if found != known else set()
            is_so = all(self.actual.get(key) == found.get(key) for key, _ in others)
            yield Dirty(0) if is_so else Dirty.ENTRIES

    def contradicts(self, events: Events) -> bool:
        """Whether an event contradicts what is remembered. Events about our own changes do not."""
        return self.doubts(events) or any(
            self.actual.get(key) != entry for key, entry in events.entries.items()
        )

    def doubts(self, events: Events) -> bool:
        """Whether an event changed an entry without telling how it is now."""
        return not events.doubtful.isdisjoint(self.actual)

    def follow(self, events: Events) -> set[Key]:
        """Remember what events say. Returns the keys of the entries that have changed."""
        others = {key: e for key, e in events.entries.items() if self.actual.get(key) != e}
        for key, entry in others.items():
            if entry:
                self.actual[key] = entry
            else:
                del self.actual[key]
        return set(others)

    def apply(self, paths: Sequence[Path], network: IPv4Network) -> None:
        """Write the entries that differ. KernelError: the kernel refused some."""
        if self._must_compare:
            desired, actual = entries_of(paths), self.actual
        else:
            gone, come = difference(self._applied, paths)
            # Nodes that share an address may share a MAC, and with it the FDB entry.
            macs = {path.node.vtep_mac for path in gone}
            sharing = [path for path in paths if path.node.vtep_mac in macs] if macs else []
            desired = entries_of([*sharing, *come])
            keys = {*desired, *entries_of(gone)}
            actual = {key: self.actual[key] for key in keys if key in self.actual}
        wanted = entries.changes(desired, actual, network)
        began = time.monotonic()
        failed = entries.write(self._netlink, wanted, self.actual)
        log.debug("%d changes of entries in %.3f s", len(wanted), time.monotonic() - began)
        refused = {change for change, _ in failed}
        log_lines(log, [it for it in wanted if it not in refused], "changes of entries")
        self._applied, self._must_compare = paths, bool(failed)
        if failed:
            change, code = failed[0]
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise KernelError(f"{change}{more}", code, _advice(code))


class RuleKeeper:
    """Keeps masquerade and forward rules with one tool, and removes those of the other tool."""

    def __init__(self, *, uses_nftables: bool) -> None:
        both: tuple[Firewall, Firewall] = Iptables(), Nftables()
        self._chosen, self._other = reversed(both) if uses_nftables else both
        self._has_cleaned = False

    def apply(self, policy: Policy) -> None:
        """Make the rules as `policy` says. The first call removes the other tool's rules."""
        done = self._chosen.ensure(policy)
        if not self._has_cleaned:
            done += self._other.remove()
            self._has_cleaned = True
        for line in done:
            log.info("%s", line)


def _advice(code: int) -> str:
    return "is the device down?" if code in {errno.ENETDOWN, errno.ENODEV} else "see 'ip route'"
