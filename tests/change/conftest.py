# SPDX-License-Identifier: Apache-2.0
"""What the tests of this folder share: two nodes of their own, which each test puts right again."""

from __future__ import annotations

import pytest
from rig import AGENT

pytest.register_assert_rewrite("abreast")


@pytest.fixture(scope="module")
def pair(make_module_lab):
    """Two nodes with two pods each."""
    lab = make_module_lab(nodes=2, pods_per_node=2, kernel_only=0, agent_options=AGENT)
    for node in ("node1", "node2"):
        # Datagrams' approvals age by conntrack's timeouts, whatever AGENT says.
        timeouts = [f"net.netfilter.nf_conntrack_{kind}_timeout=1800" for kind in ("udp", "icmp")]
        lab.exec(node, "sysctl", "-qw", *timeouts)
    return lab
