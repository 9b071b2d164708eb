# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that a test enters itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from standing import entered


@pytest.fixture
def netns(make_netns: Callable[[str], str]) -> Iterator[str]:
    """A bare namespace, in which the test's own thread is; its name."""
    name = make_netns("kernel")
    with entered(name):
        yield name
