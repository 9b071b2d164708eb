"""What the tests of this folder share: two nodes of their own, which each test puts right again."""

from __future__ import annotations

import pytest
from rig import AGENT


@pytest.fixture(scope="module")
def pair(make_module_lab):
    """Two nodes with two pods each."""
    return make_module_lab(nodes=2, pods_per_node=2, kernel_only=0, agent_options=AGENT)
