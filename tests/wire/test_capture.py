# SPDX-License-Identifier: Apache-2.0
"""What crosses the wire is flannel's VXLAN, read by a program that knows nothing of vxlane."""

import struct
import subprocess

import pytest
import transfer
from frames import ETHERNET, IP
from offloads import FEATURES, nics, switched, veths
from wire import RECEIVER, SENDER

from vxlane.lab.waiting import wait_for

STOCK = "node3-pod1"
NONE = (False,) * len(FEATURES)
"""So that each frame on the wire is one that a real NIC would send."""

FIELDS = (
    "_ws.malformed",
    "vxlan.flags",
    "vxlan.vni",
    "eth.dst",
    "ip.src",
    "ip.dst",
    "ip.ttl",
    "ip.checksum.status",
    "udp.checksum.status",
    "tcp.checksum.status",
    "tcp.checksum",
    "tcp.checksum_calculated",
)
GOOD, NOT_PRESENT = "1", "3"
"""tshark's words for checksums."""


def decode(frames, file):
    """Each frame as tshark reads it: field -> values, the outermost header's first."""
    # struct pcap_file_header and pcap_pkthdr, link type Ethernet.
    records = b"".join(struct.pack("=IIII", 0, 0, len(raw), len(raw)) + raw for raw in frames)
    file.write_bytes(struct.pack("=IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1) + records)
    checks = [f"-o{layer}.check_checksum:TRUE" for layer in ("ip", "udp", "tcp")]
    # What pods say is no protocol's, but they say it from ports that the kernel draws by chance.
    # Some of these are a protocol's to tshark, which calls our bytes malformed then.
    ports = ["udp.port==32768-65535,data", "tcp.port==32768-65535,data", "udp.port==8472,vxlan"]
    decoders = [word for port in ports for word in ("-d", port)]
    wanted = [word for field in FIELDS for word in ("-e", field)]
    argv = ["tshark", "-r", str(file), *decoders, *checks, "-T", "fields"]
    done = subprocess.run([*argv, *wanted], check=True, capture_output=True, text=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [
        {field: values.split(",") for field, values in zip(FIELDS, row, strict=True)}
        for row in rows
    ]


def talk(wire, source, target):
    """A ping, a connection and datagrams."""
    ping = ["ping", "-n", "-c", "5", "-i", "0.05", wire.lab.address(target)]
    wire.lab.exec(source, *ping)
    transfer.tcp(wire.ends(source, target), 1 << 20)
    transfer.udp(wire.ends(source, target), count=20, size=1400)


def check(wire, frame, source, target):
    """A frame of a pod on one node to a pod on another is a sound tunnel between the two."""
    ends = [(pod.partition("-")[0], pod) for pod in (source, target)]
    assert frame["_ws.malformed"] == [""]
    assert (frame["vxlan.flags"], frame["vxlan.vni"]) == (["0x0800"], ["1"])
    assert frame["eth.dst"][1] == wire.lab.node(ends[1][0]).vtep_mac
    assert frame["ip.src"] == [wire.lab.address(place) for place in ends[0]]
    assert frame["ip.dst"] == [wire.lab.address(place) for place in ends[1]]
    assert frame["ip.ttl"] == ["64", "63"]
    assert frame["ip.checksum.status"] == [GOOD, GOOD]
    assert frame["udp.checksum.status"][0] in {GOOD, NOT_PRESENT}
    assert set(frame["udp.checksum.status"][1:]) <= {GOOD}
    # Both words of a sum that is 0 are sound. One in 65,536 is, the kernel writes 0xffff for it
    # (skb_checksum_help()), and tshark calls that bad, for RFC 1624 asks for 0x0000.
    if (frame["tcp.checksum"], frame["tcp.checksum_calculated"]) != (["0xffff"], ["0x0000"]):
        assert set(frame["tcp.checksum.status"]) <= {"", GOOD}


@pytest.mark.parametrize(
    ("source", "target"), [(SENDER, RECEIVER), (SENDER, STOCK), (STOCK, SENDER)]
)
def test_tshark_reads_it(wire, tmp_path, source, target):
    """Every tunnel decodes as VXLAN 1 with a sound packet of the pods; the bypass made most."""
    places = [f"wire-{pod.partition('-')[0]}" for pod in (source, target)]
    with (
        switched(wire.lab, nics(wire.lab), NONE),
        switched(wire.lab, veths(wire.lab), NONE),
    ):
        with wire.lab.verdicts("node1") as moved:
            wire.tap(places[0]).drain()
            wire.tap(places[1]).drain()
            talk(wire, source, target)
        # Before the offloads are back: what is sent then has no finished checksum.
        seen = {place: wire.tap(place).drain() for place in places}
    crossed = {}
    for place, ends in zip(places, ((source, target), (target, source)), strict=True):
        crossed[place] = decode(seen[place], tmp_path / place)
        for frame in crossed[place]:
            check(wire, frame, *ends)
    sent = crossed["wire-node1"]
    ours = [frame for frame in sent if frame["udp.checksum.status"][0] == NOT_PRESENT]
    assert len(ours) == moved["from_pod", "encapsulated"]
    left = sum(packets for (program, _), packets in moved.items() if program == "from_pod")
    left -= len(ours)
    assert len(sent) - len(ours) == left
    assert len(ours) > 10 * left if source == SENDER else len(ours) > left


def sent_by_node1(wire, plain, count):
    """The tunnels, as they are, that `count` copies of a pod's packet become."""
    tap, seen = wire.tap("wire-node1"), []
    tap.drain()
    wire.send([plain] * count, at=SENDER)
    wait_for(lambda: seen.extend(tap.drain()) or len(seen) == count, "the tunnels")
    return seen


def test_the_frame_is_stocks(wire):
    """A tunnel differs from flannel.1's in nothing but its identification and outer checksum."""
    plain = wire.from_pod(wire.fresh_flow(bytes(100)))
    wire.set_bypass(enabled=False)
    (stock,) = sent_by_node1(wire, plain, 1)
    wire.set_bypass(enabled=True)
    wire.approve(plain, at=SENDER)
    ours = sent_by_node1(wire, plain, 8)
    identification, header_sum = ETHERNET + 4, ETHERNET + 10
    udp_sum = ETHERNET + IP + 6
    may_differ = {at + byte for at in (identification, header_sum, udp_sum) for byte in (0, 1)}
    for frame in ours:
        assert len(frame) == len(stock)
        differ = {at for at, pair in enumerate(zip(stock, frame, strict=True)) if len({*pair}) > 1}
        assert differ <= may_differ
        assert frame[udp_sum : udp_sum + 2] == bytes(2)
    assert stock[udp_sum : udp_sum + 2] != bytes(2)
    # DF is not set: fragments of two tunnels must not be taken for one another's.
    assert len({frame[identification : identification + 2] for frame in ours}) > 1
