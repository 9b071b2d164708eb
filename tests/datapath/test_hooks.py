# SPDX-License-Identifier: Apache-2.0
"""What becomes of attaching and detaching is counted, by program and result."""

from __future__ import annotations

from collections import Counter

import pytest

from vxlane.datapath.abi import Program
from vxlane.datapath.hooks import HookKeeper, Place
from vxlane.errors import KernelError


class Refusing:
    """Stands in for `Hooks`: refuses what is to be done on device 9."""

    def __init__(self) -> None:
        self.attach = self.detach = self._do

    def attached(self) -> set[Place]:
        """See `Hooks`."""
        return set()

    def _do(self, _: Program, ifindex: int) -> None:
        if ifindex == 9:
            raise KernelError("no", 1)


def test_results_are_counted() -> None:
    """Once for each program that was put somewhere or taken off, or could not be."""
    counted: Counter[tuple[str, str, bool]] = Counter()
    keeper = HookKeeper(Refusing(), counted)
    here, there = (Program.FROM_POD, 7), (Program.TO_POD, 9)
    for _ in range(2):
        keeper.attach([here])
    assert keeper.attach([there])
    assert counted == {("from_pod", "attach", True): 1, ("to_pod", "attach", False): 1}
    counted.clear()
    for _ in range(2):
        keeper.detach([here])
    with pytest.raises(KernelError):
        keeper.detach([there])
    assert counted == {("from_pod", "detach", True): 1, ("to_pod", "detach", False): 1}
