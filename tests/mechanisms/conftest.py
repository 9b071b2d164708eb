# SPDX-License-Identifier: Apache-2.0
"""A namespace that a test enters itself, for its rules; and two nodes that bypass."""

from __future__ import annotations

import pytest
from standing import entered


@pytest.fixture
def netns(make_netns):
    """A bare namespace, in which the test's own thread is; its name."""
    name = make_netns("rules")
    with entered(name):
        yield name


@pytest.fixture(scope="module")
def pair(make_module_lab):
    """Two nodes with two pods each, whose approvals age too late for a test to notice."""
    return make_module_lab(
        nodes=2, pods_per_node=2, kernel_only=0, agent_options=("--revalidate", "600")
    )
