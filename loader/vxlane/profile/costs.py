# SPDX-License-Identifier: Apache-2.0
"""What vxlane's programs cost: the kernel counts runs and run time of each while it is asked to."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from vxlane.datapath import pins, syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.runtime import RunTime, run_time, statistics
from vxlane.errors import KernelError, VxlaneError

Runs = dict[Program, RunTime]
_REPLACED = "the programs were replaced or removed meanwhile: only what those cost is counted"


class Costs:
    """Counted from `begin` to `end`. What fails on the way is in `missing`: sentences."""

    def __init__(self, place: Path) -> None:
        """`place`: where the programs are pinned."""
        self.missing: list[str] = []
        self._place = place
        self._open = contextlib.ExitStack()
        self._programs: dict[Program, int] = {}
        self._before: Runs = {}

    def begin(self) -> None:
        """Have the kernel count. That ends with this object's descriptors, however they go."""
        try:
            self._open.enter_context(statistics())
            for program in Program:
                self._programs[program] = self._keep(syscall.obj_get(self._place / program.label))
            self._before = self._read()
        except (KernelError, FileNotFoundError) as error:
            self.missing.append(f"what the programs cost is not known: {error}")
            self.close()

    def end(self) -> Runs:
        """What was counted since; empty where nothing could be."""
        try:
            if not self._are_in_place():
                self.missing.append(_REPLACED)
            return {
                program: now.since(self._before[program]) for program, now in self._read().items()
            }
        except VxlaneError as error:
            self.missing.append(f"what the programs cost is not known: {error}")
            return {}
        finally:
            self.close()

    def close(self) -> None:
        """Have the kernel count no more."""
        self._programs = {}
        self._open.close()

    def _are_in_place(self) -> bool:
        pinned = pins.read(self._place)
        return all(
            pinned.get(program.label) == syscall.object_id(fd)
            for program, fd in self._programs.items()
        )

    def _keep(self, descriptor: int) -> int:
        self._open.callback(os.close, descriptor)
        return descriptor

    def _read(self) -> Runs:
        return {program: run_time(fd) for program, fd in self._programs.items()}
