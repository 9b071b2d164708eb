# SPDX-License-Identifier: Apache-2.0
"""Connections by TCP Fast Open are to conntrack what they are on the kernel path.

What the server says before its client's ACK opens no bypass for that ACK: the connection becomes
ESTABLISHED on both nodes, and is bypassed from then on.
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

from dialogue import PORT, serving
from kubeservice import PORT as SERVICE_PORT
from kubeservice import VIRTUAL
from paths import bypassed
from servicecalls import BACKENDS
from test_conntrack import CLIENT, NODES, states

PROGRAM = str(Path(__file__).with_name("fast_open.py"))
COUNT = 5
SLOWLY = "tbf rate 64kbit burst 128 limit 20000"
"""What a pod sends behind its SYN waits for some milliseconds, and is overtaken."""


@BACKENDS
def test_by_address(lab, kernel_lab, backend):
    """Between two pods."""
    with lab.verdicts("node1") as seen:
        ours = standing(lab, backend, lab.address(backend), PORT)
    assert sum(bypassed(seen).values()) >= COUNT
    theirs = standing(kernel_lab, backend, kernel_lab.address(backend), PORT)
    assert theirs[0] == {"ESTABLISHED": COUNT}
    assert ours == theirs


@BACKENDS
def test_by_service(lab, kernel_lab, kube_proxy, backend):
    """The same by kube-proxy's address."""
    for one in (lab, kernel_lab):
        kube_proxy("node1", backends=[one.address(backend)], lab=one)
    with lab.verdicts("node1") as seen:
        ours = standing(lab, backend, VIRTUAL, SERVICE_PORT)
    assert sum(bypassed(seen).values()) >= COUNT
    theirs = standing(kernel_lab, backend, VIRTUAL, SERVICE_PORT)
    assert theirs[0] == {"ESTABLISHED": COUNT}
    assert ours == theirs


def standing(lab, server, address, port):
    """The states of COUNT connections that the client keeps, as each node's conntrack has them."""
    for node in NODES:
        lab.exec(node, "conntrack", "-F")
    before = opened_fast(lab, server)
    call = [sys.executable, PROGRAM, str(address), str(port), str(COUNT)]
    with (
        opening_fast(lab, CLIENT),
        opening_fast(lab, server),
        sending_slowly(lab),
        serving(lab, server),
        lab.spawn(CLIENT, *call, stdin=-1, stdout=-1) as calling,
    ):
        assert calling.stdout.readline() == "open\n"
        # The first has no cookie of the server's yet: it is an ordinary connection.
        assert opened_fast(lab, server) - before >= COUNT - 1
        found = [dict(states(lab, node)) for node in NODES]
    lab.exec(CLIENT, "ss", "--kill", "--tcp")
    return found


@contextlib.contextmanager
def opening_fast(lab, pod):
    """Allow a pod's clients to, and have all its servers do so."""
    setting = "net.ipv4.tcp_fastopen"
    before = lab.exec(pod, "sysctl", "-n", setting).stdout.strip()
    lab.exec(pod, "sysctl", "-qw", f"{setting}={0x403}")
    try:
        yield
    finally:
        lab.exec(pod, "sysctl", "-qw", f"{setting}={before}")


@contextlib.contextmanager
def sending_slowly(lab):
    """Hold up what the client sends."""
    lab.exec(CLIENT, "tc", "qdisc", "add", "dev", "eth0", "root", *SLOWLY.split())
    try:
        yield
    finally:
        lab.exec(CLIENT, "tc", "qdisc", "del", "dev", "eth0", "root")


def opened_fast(lab, pod):
    """How many connections a pod's servers had data of before the handshake was over."""
    told = lab.exec(pod, "cat", "/proc/net/netstat").stdout
    names, numbers = re.findall(r"^TcpExt: (.*)$", told, re.MULTILINE)
    both = zip(names.split(), map(int, numbers.split()), strict=True)
    return dict(both)["TCPFastOpenPassive"]
