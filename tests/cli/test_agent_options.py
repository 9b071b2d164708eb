# SPDX-License-Identifier: Apache-2.0
"""The agent's options in flanneld's spelling."""

from __future__ import annotations

import pytest

from vxlane.cli.agent_options import _respelt


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["-ip-masq"], ["--ip-masq"]),
        (["--ip-masq=false"], ["--no-ip-masq"]),
        (["-ip-masq=T", "--iface=eth0"], ["--ip-masq", "--iface=eth0"]),
        (["-iface", "eth0"], ["--iface", "eth0"]),
        (["-etcd-password", "-secret"], ["--etcd-password", "-secret"]),
        (["-v=4"], ["--v=4"]),
        (["-v", "4", "-h"], ["--v", "4", "-h"]),
    ],
)
def test_flags_as_go_spells_them(given: list[str], read: list[str]) -> None:
    """One dash or two, `=` for switches, and values that look like flags stay values."""
    assert list(_respelt(given, {"ip-masq"})) == read
