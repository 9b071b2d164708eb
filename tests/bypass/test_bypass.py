# SPDX-License-Identifier: Apache-2.0
"""The bypass as a whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memorymaps import in_memory
from overlaystate import OVERLAY

from vxlane.bypass import bypass
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import LoadReport
from vxlane.errors import KernelError
from vxlane.util.tally import Tally


def test_a_bypass_that_can_not_be_made_leaves_no_map_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again each minute, for as long as what hinders it lasts."""
    maps, _ = in_memory(monkeypatch)
    closed = []

    def refuse(*_: object) -> None:
        raise KernelError("dump qdiscs", 105)

    monkeypatch.setattr(maps, "close", lambda: closed.append(maps))
    monkeypatch.setattr(Maps, "open", lambda _: maps)
    monkeypatch.setattr(bypass, "ensure_loaded", lambda *_: LoadReport(loaded=False, headers=""))
    monkeypatch.setattr(bypass, "constants_for", lambda *_: None)
    monkeypatch.setattr(bypass, "Hooks", lambda *_: SimpleNamespace(refresh=lambda: None))
    monkeypatch.setattr(bypass, "HookKeeper", refuse)
    parts: Any = SimpleNamespace(state=tmp_path, method=None, socket=None)
    with pytest.raises(KernelError):
        bypass.Bypass(parts, parts, undo=parts, pods=parts, overlay=OVERLAY, tally=Tally())
    assert closed == [maps]
