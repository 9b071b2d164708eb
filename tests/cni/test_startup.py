# SPDX-License-Identifier: Apache-2.0
"""A pod waits for the plugin's start, so what it imports is counted."""

import subprocess
import sys

import pytest

from vxlane.install.executable import START

HEAVY = {"asyncio", "ctypes", "dataclasses", "enum", "inspect", "json", "os", "pathlib", "re"}
HEAVY |= {"bcc", "click", "prometheus_client", "pyroute2", "socket", "subprocess", "typing"}
CONF = b'{"cniVersion":"1.0.0","name":"cbr0","type":"vxlane","stateDir":"/x","prevResult":{}}'


@pytest.mark.parametrize(
    ("command", "status"), [("ADD", 0), ("DEL", 0), ("CHECK", 1), ("VERSION", 0)]
)
def test_chained_role_imports_nothing_heavy(binaries, command, status):
    """Calls of the chained role import neither bcc, pyroute2 nor click, nor os, re or typing."""
    argv = [sys.executable, "-X", "importtime", "-X", "utf8", "-ISc", START]
    env = {"CNI_COMMAND": command, "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_NETNS": "/x"}
    done = subprocess.run(
        [*argv, str(binaries / "vxlane")], env=env, input=CONF, capture_output=True, check=False
    )
    assert done.returncode == status  # CHECK finds no namespace
    lines = [line for line in done.stderr.decode().splitlines() if "|" in line]
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "vxlane_cni.chained" in imported
    assert not imported & HEAVY
    assert "vxlane_cni.flannel" not in imported
