# SPDX-License-Identifier: Apache-2.0
"""Whether IPVS translates connections, as kube-proxy in mode ipvs and kube-router use it.

An IPVS connection has timers of its own, which bypassed packets would not restart. There are no
events about IPVS services, so they are read again and again.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from vxlane.mechanisms.kinds import Finding, Kind

SERVICES = Path("/proc/thread-self/net/ip_vs")
"""Lists the services of this thread's network namespace. It is missing without IPVS."""
_HEADINGS = 3


class IpvsReader:
    """Reads whether there are services."""

    def __init__(self, services: Path) -> None:
        self._services = services
        self._has_any = False

    def refresh(self) -> bool:
        """Read again. True: there are services now and were none before, or the reverse."""
        before, self._has_any = self._has_any, self._read()
        return self._has_any != before

    def findings(self) -> tuple[Finding, ...]:
        """What was read."""
        found = Finding(Kind.IPVS, "IPVS services", is_translated=True)
        return (found,) if self._has_any else ()

    def _read(self) -> bool:
        try:
            with self._services.open() as file:
                return len(list(islice(file, _HEADINGS + 1))) > _HEADINGS
        except FileNotFoundError:
            return False
