# SPDX-License-Identifier: Apache-2.0
"""How much of conntrack `vxlane flows --slow` judges."""

from __future__ import annotations

import contextlib

from vxlane.why import slow


def test_no_more_is_judged_than_is_shown(monkeypatch, tmp_path):
    """Behind the last flow that is shown no other one is looked at."""
    judged = []
    monkeypatch.setattr(slow, "MOST", 2)
    monkeypatch.setattr(slow, "opened", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(slow, "ask", lambda _: None)
    monkeypatch.setattr(slow, "notes", lambda _: [])
    monkeypatch.setattr(slow, "counts", lambda: True)
    monkeypatch.setattr(slow, "_by_bytes", lambda found: found[0])
    monkeypatch.setattr(slow, "_connections", lambda _: [(number, None) for number in range(9)])
    monkeypatch.setattr(slow, "_slow", lambda _reader, sent, *_: judged.append(sent) or {"n": sent})
    assert slow.slow_flows(tmp_path)["flows"] == [{"n": 0}, {"n": 1}]
    assert judged == [0, 1]
