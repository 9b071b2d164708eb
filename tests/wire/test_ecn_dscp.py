# SPDX-License-Identifier: Apache-2.0
"""ECN marks cross the tunnel both ways and DSCP stays inside, as ip_tunnel and RFC 6040 have it."""

import contextlib
import itertools
from dataclasses import replace

import pytest
import transfer
from frames import CE, ECT0, ECT1, ETHERNET, NOT_ECT
from wire import AT_RECEIVER, RECEIVER, SENDER

MARKS = (NOT_ECT, ECT1, ECT0, CE)
DSCPS = (0, 8, 46, 63)
# Outer and inner marks that no encapsulator sets.
ODD = {(ECT1, NOT_ECT), (ECT0, NOT_ECT), (ECT1, ECT0), (ECT1, CE)}
MARKER = """\
table bridge congested {
	chain forward {
		type filter hook forward priority 0
		udp dport 8472 ip ecn ect0 counter ip ecn set ce
	}
}
"""


def tos(frame, at=0):
    """The TOS byte of the IP header behind the Ethernet header at `at`."""
    return frame[at + ETHERNET + 1]


def test_marks_and_dscp_go_out_as_stock(wire):
    """The outer header has the inner's ECN mark, CE as ECT(0), no DSCP; the inner is unchanged."""
    plain = wire.from_pod(wire.fresh_flow())
    sent = [dscp << 2 | mark for dscp in DSCPS for mark in MARKS]
    frames = [replace(plain, tos=each) for each in sent]
    outcome = wire.compare(frames, at=SENDER, approve=plain, seen_at=("wire-node1", RECEIVER))
    assert outcome.bypass == outcome.kernel
    assert [tos(frame) for frame in outcome.bypass[RECEIVER]] == sent
    outer = [tos(frame) for frame in outcome.bypass["wire-node1"]]
    assert outer == [NOT_ECT, ECT1, ECT0, ECT0] * len(DSCPS)
    number = len(sent)
    assert outcome.counted == [
        *["from_nic decapsulated"] * number,
        *["from_pod encapsulated"] * number,
    ]


@pytest.mark.parametrize(("outer", "inner"), [*itertools.product(MARKS, MARKS)])
def test_marks_come_in_as_stock(wire, outer, inner):
    """A mark set on the way reaches a pod that can take it; what can't be is the kernel's."""
    plain = wire.from_pod(wire.fresh_flow())
    frame = replace(wire.from_peer(replace(plain, tos=46 << 2 | inner)), tos=outer)
    approve = wire.from_peer(plain)
    outcome = wire.compare([frame], at=AT_RECEIVER, approve=approve, seen_at=(RECEIVER,))
    assert outcome.bypass == outcome.kernel
    if (outer, inner) == (CE, NOT_ECT):
        # Congestion that the sender can't be told of but by the loss.
        assert outcome.arrivals == {}
        assert outcome.counted == ["from_nic ecn"]
        return
    merged = CE if outer == CE else inner
    # ECT(1) is L4S's: kernels differ in what they make of it, and so it is theirs.
    if (outer, inner) in ODD:
        merged = ECT1 if outer == ECT1 and inner == ECT0 else inner
        came_out = "learned" if merged == inner else "changed"
        assert outcome.counted == ["from_nic ecn", f"to_pod {came_out}"]
    else:
        assert outcome.counted == ["from_nic decapsulated"]
    assert [tos(frame) for frame in outcome.bypass[RECEIVER]] == [46 << 2 | merged]


def counter(wire, pod, name):
    """A counter of a pod's IP stack, IpExt or TcpExt of /proc/net/netstat."""
    lines = wire.lab.exec(pod, "cat", "/proc/net/netstat").stdout.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        found = dict(zip(names.split(), values.split(), strict=True))
        if name in found:
            return int(found[name])
    raise AssertionError(f"no counter {name}")


def counters(wire):
    """ECT(0) and CE packets that RECEIVER saw, and CE ones that SENDER was told of."""
    seen = [counter(wire, RECEIVER, name) for name in ("InECT0Pkts", "InCEPkts")]
    return [*seen, counter(wire, SENDER, "TCPDeliveredCE")]


@pytest.fixture
def congested(wire):
    """ECN between SENDER and RECEIVER, and a switch that marks every tunnel it may."""
    lab = wire.lab
    with contextlib.ExitStack() as stack:
        for pod in (SENDER, RECEIVER):
            was = lab.exec(pod, "sysctl", "-n", "net.ipv4.tcp_ecn").stdout.strip()
            lab.exec(pod, "sysctl", "-qw", "net.ipv4.tcp_ecn=1")
            stack.callback(lab.exec, pod, "sysctl", "-qw", f"net.ipv4.tcp_ecn={was}")
        lab.exec("switch", "nft", "-f", "-", stdin=MARKER)
        stack.callback(lab.exec, "switch", "nft", "delete", "table", "bridge", "congested")
        yield


@pytest.mark.usefixtures("congested")
@pytest.mark.parametrize("enabled", [False, True], ids=["kernel", "bypass"])
def test_congestion_is_told(wire, enabled):
    """No mark that a switch set on a tunnel is lost on its way to TCP, which tells the sender."""
    wire.set_bypass(enabled=enabled)
    before = counters(wire)
    try:
        with wire.lab.verdicts("node2") as moved:
            transfer.tcp(wire.ends(SENDER, RECEIVER), 4 << 20)
    finally:
        wire.set_bypass(enabled=True)
    unmarked, marked, told = (now - then for now, then in zip(counters(wire), before, strict=True))
    assert unmarked == 0
    assert marked > 1000
    assert told > 1000
    assert ("from_nic", "ecn") not in moved
    assert (moved["from_nic", "decapsulated"] > 1000) is enabled
