# SPDX-License-Identifier: Apache-2.0
"""A namespace that a test enters itself, for its rules."""

from __future__ import annotations

import pytest
from standing import entered


@pytest.fixture
def netns(make_netns):
    """A bare namespace, in which the test's own thread is; its name."""
    name = make_netns("rules")
    with entered(name):
        yield name
