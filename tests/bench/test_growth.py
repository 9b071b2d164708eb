# SPDX-License-Identifier: Apache-2.0
"""What the programs cost is measured of bypassed packets alone."""

from __future__ import annotations

import pytest

from vxlane.bench import growth
from vxlane.errors import LabError


def test_what_is_not_bypassed_is_not_measured(monkeypatch):
    """A complaint of the paths ends the measurement; without one there are costs."""
    measured = []
    monkeypatch.setattr(growth, "PEERS", ())
    monkeypatch.setattr(growth, "FLOWS", (1,))
    monkeypatch.setattr(growth, "_fill", lambda *_: None)
    monkeypatch.setattr(growth.programs, "of_bypass", lambda _: None)
    monkeypatch.setattr(growth.programs, "under_load", lambda *_: measured.append(1) or [{}])
    with pytest.raises(LabError, match="no packet was bypassed to measure: it was not"):
        list(growth.costs(None, None, lambda: "it was not", print))
    assert measured == []
    assert list(growth.costs(None, None, lambda: "", print)) == [{}]
