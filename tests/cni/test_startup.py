"""A pod waits for the plugin's start, so what it imports is counted."""

import subprocess
import sys

HEAVY = {"asyncio", "ctypes", "dataclasses", "enum", "inspect", "json", "pathlib", "re"}
HEAVY |= {"bcc", "click", "prometheus_client", "pyroute2", "socket", "subprocess", "typing"}
PROBE = """
import sys
sys.path[:0] = sys.argv[1:]
before = set(sys.modules)
from vxlane.cni import plugin
conf = b'{"cniVersion":"1.0.0","name":"cbr0","type":"vxlane","stateDir":"/x","prevResult":{}}'
for command in ("ADD", "DEL", "CHECK", "VERSION"):
    environ = {"CNI_COMMAND": command, "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0"}
    plugin.call({**environ, "CNI_NETNS": "/x"}, conf)
print(*set(sys.modules) - before)
"""


def test_chained_role_imports_nothing_heavy(binaries):
    """Calls of the chained role import neither bcc, pyroute2 nor click, nor re, enum or typing."""
    argv = [sys.executable, "-ISc", PROBE, str(binaries / "vxlane")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "vxlane.cni.chained" in imported
    assert not imported & HEAVY
    assert "vxlane.cni.flannel" not in imported
