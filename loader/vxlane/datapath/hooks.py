# SPDX-License-Identifier: Apache-2.0
"""Keeps programs attached to the devices where they belong, and to no others."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from vxlane.datapath.abi import Program
from vxlane.datapath.attach import Hooks
from vxlane.errors import KernelError
from vxlane.util.dirty import Dirty
from vxlane.util.names import device_name

log = logging.getLogger(__name__)

Place = tuple[Program, int]
"""A program and the ifindex of the device that it is attached to."""


class HookKeeper:
    """Attaches and detaches programs, and remembers where they are attached."""

    def __init__(self, hooks: Hooks, results: Counter[tuple[str, str, bool]]) -> None:
        """`results` counts by program, "attach" or "detach", and whether that succeeded."""
        self._hooks = hooks
        self._results = results
        self._attached = hooks.attached()
        self.refused: dict[Place, str] = {}
        """Places where a program can't be attached -> the reason."""

    def read(self) -> None:
        """Read from the kernel where programs are attached."""
        self._attached = self._hooks.attached()

    def resync(self) -> Iterator[Dirty]:
        """Compare what is attached with what is remembered. Yields what to reconcile."""
        self.move_behind_others()
        yield Dirty(0) if self._hooks.attached() == self._attached else Dirty.MAPS

    def move_behind_others(self) -> None:
        """Move behind filters of others that were attached later, so that they see every packet.

        Packets in between take the kernel path.
        """
        for program, ifindex in self._hooks.in_front():
            log.info("let others' filters on %s be first", device_name(ifindex))
            self.detach([(program, ifindex)])
            self.attach([(program, ifindex)])

    @property
    def attached(self) -> frozenset[Place]:
        """Where programs are attached."""
        return frozenset(self._attached)

    def attach(self, places: Iterable[Place]) -> str:
        """Attach the missing ones, up to the first failure. Returns its reason; empty: none."""
        for program, ifindex in places:
            if (program, ifindex) in self._attached:
                continue
            try:
                self._hooks.attach(program, ifindex)
            except KernelError as error:
                reason = str(error)
                if self.refused.get((program, ifindex)) != reason:
                    log.warning("%s", reason)
                self.refused[program, ifindex] = reason
                self._results[program.label, "attach", False] += 1
                return reason
            self._results[program.label, "attach", True] += 1
            self._attached.add((program, ifindex))
            self.refused.pop((program, ifindex), None)
            log.info("attach %s to %s", program.label, device_name(ifindex))
        return ""

    def detach(self, places: Iterable[Place]) -> None:
        """Detach the programs. The program of a device that is gone is gone, too."""
        for program, ifindex in places:
            try:
                self._hooks.detach(program, ifindex)
            except KernelError:
                self._results[program.label, "detach", False] += 1
                raise
            self.refused.pop((program, ifindex), None)
            if (program, ifindex) in self._attached:
                self._results[program.label, "detach", True] += 1
                self._attached.discard((program, ifindex))
                log.info("detach %s from %s", program.label, device_name(ifindex))

    def apply(self, wanted: set[Place]) -> None:
        """Attach and detach, so that programs are attached to exactly the `wanted` places."""
        self.detach(self._attached - wanted)
        for place in sorted(wanted - self._attached):
            self.attach([place])
        for place in self.refused.keys() - wanted:
            del self.refused[place]
