# SPDX-License-Identifier: Apache-2.0
"""The lab of this folder: its nodes' rules, routes and devices are each test's to change."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def pair(make_module_lab):
    """Two nodes with a pod each, whose approvals age too late for a test to notice."""
    return make_module_lab(
        nodes=2, pods_per_node=1, kernel_only=0, agent_options=["--revalidate", "600"]
    )
