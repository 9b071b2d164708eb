# SPDX-License-Identifier: Apache-2.0
"""What each podman of the tests is told, in containers.conf."""

from __future__ import annotations

CONTAINERS_CONF = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
[containers]
default_ulimits = ["nofile=4096:20000", "nproc=4096:4096"]
"""
