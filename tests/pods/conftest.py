# SPDX-License-Identifier: Apache-2.0
"""A node with two veths and no pods."""

from __future__ import annotations

from pathlib import Path

import pytest
from memorymaps import in_memory
from podhost import Host, Node, veth

from vxlane.pods import pods


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node with two veths and no pods."""
    maps, bpf = in_memory(monkeypatch)
    host = Host(veth(1), veth(2))
    monkeypatch.setattr(pods, "far_end", lambda _, ifindex: host.ends.get(ifindex))
    return Node(maps, bpf, host, tmp_path)
