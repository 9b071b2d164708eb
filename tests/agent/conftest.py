# SPDX-License-Identifier: Apache-2.0
"""Nodes for agents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from agentnode import BY_EVENTS, AgentNode


@pytest.fixture
def node(_machine: None) -> Iterator[AgentNode]:
    """A node without an agent yet, for one test."""
    node = AgentNode("own")
    yield node
    node.remove()


@pytest.fixture(scope="module")
def running(_machine: None) -> Iterator[AgentNode]:
    """A node with an agent in mode own, for all tests of a file: each leaves it as it was."""
    node = AgentNode("shared")
    node.start(BY_EVENTS)
    yield node
    node.remove()
