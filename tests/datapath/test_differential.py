# SPDX-License-Identifier: Apache-2.0
"""Almost valid frames through the whole node, without vxlane and with it: the same comes out.

The frames are those of test_fuzz.py, but they travel: into a pod's veth or the NIC, through
whatever the kernel makes of them, out at every cable. Nothing here knows what is right.
"""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from bases import BASES, FLOWS
from bench import Bench
from chamber import Port, ip
from frames import ENCAPSULATION, ETHERNET, ICMP, UDP
from mutation import Mutator
from node import Node
from tables.case import handed_over, sent
from tables.from_nic import ANSWER, carried, inner
from tables.nat import SERVICE, SERVICE_UDP, peer_sends, pod_sends
from world import (
    MTU,
    NEIGHBOUR_VETH,
    NIC,
    NODE_ADDRESS,
    OTHER_PEER,
    PORT,
    REMOTE,
    VETH,
    Approval,
    World,
)
from worldmaps import stand

from vxlane.datapath.abi import Program, Verdict, VerdictKind, Way
from vxlane.datapath.attach import Hooks, Method
from vxlane.netlink.socket import NetlinkSocket


def another(flow: Approval, port: int) -> Approval:
    """The same flow from another port of the pod's."""
    assert flow.behind
    behind = replace(flow.behind, local_port=port)
    return replace(flow, tuple=replace(flow.tuple, local_port=port), behind=behind)


CHECKSUMS = ({}, {"checksum": 0})
SEED, ROUNDS, PER_ROUND = 20261122, 100, 50
# Of TCP conntrack remembers what it saw, which is less with a bypass.
SERVED = [SERVICE_UDP, *(another(SERVICE_UDP, port) for port in (41100, 41101))]
WORLD = World(
    peers=(World().peers[0], replace(OTHER_PEER, way=Way.DIRECT)),
    flows=frozenset([*FLOWS, *SERVED]),
)
SERVICES = {
    Program.FROM_POD: [bytes(pod_sends(flow, **one)) for flow in SERVED for one in CHECKSUMS],
    Program.FROM_NIC: [
        bytes(carried(peer_sends(flow, **one))) for flow in SERVED for one in CHECKSUMS
    ],
}
# Addresses from which the node itself sends: tunnels, ICMP errors.
OWN = {NODE_ADDRESS.packed, bytes([10, 42, 1, 0]), bytes([10, 42, 1, 1])}
LONGEST = {Program.FROM_POD: ETHERNET + MTU, Program.FROM_NIC: ETHERNET + 1500}
MARKER = replace(ANSWER, payload=b"this was the last of the round", source=1, dest=1)
SENT_BACK = Counter[tuple[str, bytes]]


@pytest.fixture
def deterministic(node: Node) -> Iterator[None]:
    """Nothing that the node does depends on time: no rate limits, redirects or ARP requests.

    Where there is no route, errors have a limit of their own; into a black hole go none.
    """
    wanted = {"ipv4/icmp_ratemask": "0"}
    for device in ("cni0", "nic"):
        wanted[f"ipv4/conf/{device}/send_redirects"] = "0"
        wanted[f"ipv4/neigh/{device}/mcast_solicit"] = "0"
    wanted["ipv4/conf/all/send_redirects"] = "0"
    # Netfilter gives no address to a packet whose checksum is wrong, if it looks.
    wanted["netfilter/nf_conntrack_checksum"] = "0"
    # It puts fragments together too, of whichever rounds. The lower limit comes first.
    wanted |= {"ipv4/ipfrag_low_thresh": "0", "ipv4/ipfrag_high_thresh": "0"}
    before = node.chamber.run(exchange, wanted)
    node.chamber.run(ip, "route add blackhole default")
    yield
    node.chamber.run(ip, "route delete blackhole default")
    node.chamber.run(exchange, dict(reversed(before.items())))


@pytest.fixture
def service(node: Node) -> Iterator[None]:
    """Who is behind a Service, by rules as kube-proxy writes them; conntrack knows the flows."""
    rules = (
        "table ip nat { chain prerouting { type nat hook prerouting priority dstnat;"
        f" ip daddr {SERVICE} udp dport 443 dnat to {REMOTE}:8443; }}; }}"
    )
    node.chamber.run(subprocess.run, ["nft", rules], check=True)
    # Of other tests' flows: a rule's translation is that of a flow's first packet.
    node.chamber.run(subprocess.run, ["conntrack", "-F"], check=True, capture_output=True)
    for flow in SERVED:
        node.pod.send(bytes(pod_sends(flow)))
    yield
    node.chamber.run(subprocess.run, ["nft", "delete table ip nat"], check=True)


def exchange(wanted: dict[str, str]) -> dict[str, str]:
    """Set sysctls of the calling thread's namespace, answer what they were."""
    before = {}
    for name, value in wanted.items():
        sysctl = Path("/proc/sys/net", name)
        before[name] = sysctl.read_text()
        sysctl.write_text(value)
    return before


@contextmanager
def vxlane(bench: Bench, netlink: NetlinkSocket) -> Iterator[None]:
    """The programs that take packets past the kernel path, on their hooks."""
    hooks = Hooks(bench.pins, Method.AUTO, netlink)
    for program, ifindex in (
        (Program.FROM_POD, VETH),
        (Program.FROM_POD, NEIGHBOUR_VETH),
        (Program.FROM_NIC, NIC),
    ):
        hooks.attach(program, ifindex)
    try:
        yield
    finally:
        hooks.detach_all()


def mutants(program: Program, dice: random.Random) -> list[bytes]:
    """Frames of one round, without a tunnel's checksum: the bypass looks at what it covers."""
    bases = [base.frame for base in BASES[program] if base.ifindex != NEIGHBOUR_VETH]
    bases += SERVICES[program]
    mutator = Mutator(dice, bases)
    made = []
    for _ in range(PER_ROUND):
        frame = bytearray(mutator.mutant(dice.choice(bases)))
        if is_tunnel(frame):
            frame[40:42] = bytes(2)
        made.append(bytes(frame[: LONGEST[program]]))
    return made


def is_tunnel(frame: bytes | bytearray) -> bool:
    """Whether it is UDP to the VXLAN port."""
    return frame[23] == UDP and frame[36:38] == PORT.to_bytes(2, "big")


def plain(frame: bytes) -> bytes:
    """Without what the node chooses at random in its own packets, and the tunnel's checksum."""
    # Of a Service's flow, which is UDP, its error has the Service's address.
    is_error = frame[23] == ICMP and frame[26:30] == SERVICE.packed
    if frame[12:14] != b"\x08\x00" or not (is_error or frame[26:30] in OWN):
        return frame
    made = bytearray(frame)
    made[18:20] = made[24:26] = b"??"
    if is_tunnel(frame):
        # The source port is the flow's record's, which test_wire.py compares.
        made[34:36] = made[40:42] = b"??"
        made[ETHERNET + ENCAPSULATION - ETHERNET :] = plain(frame[ENCAPSULATION:])
    return bytes(made)


def round_trip(node: Node, source: Port, frames: list[bytes], markers: list[bytes]) -> SENT_BACK:
    """Send a round and answer all that came out, by cable."""
    cables = {"wire": node.wire, "pod": node.pod, "neighbour": node.neighbour}
    for port in cables.values():
        port.drain()
    for frame in [*frames, *markers]:
        source.send(frame)
    seen: SENT_BACK = Counter()
    ends = {"wire", "neighbour"} if source is node.pod else {"pod"}
    for name in ends:
        for frame in cables[name].until(lambda one: one.endswith(MARKER.payload)):
            seen[name, plain(frame)] += 1
    for name in cables.keys() - ends:
        seen.update((name, plain(frame)) for frame in cables[name].drain())
    return seen


@pytest.mark.usefixtures("deterministic", "service")
@pytest.mark.parametrize(
    ("program", "markers"),
    [
        (Program.FROM_POD, [bytes(sent(MARKER)), bytes(handed_over(MARKER))]),
        (Program.FROM_NIC, [bytes(carried(inner(MARKER)))]),
    ],
    ids=["out", "in"],
)
def test_the_same_comes_out(
    node: Node, bench: Bench, netlink: NetlinkSocket, program: Program, markers: list[bytes]
) -> None:
    """Of 5,000 mutants the same frames come out at every cable with vxlane and without."""
    dice = random.Random(SEED)
    source = node.pod if program is Program.FROM_POD else node.wire
    rounds = [mutants(program, dice) for _ in range(ROUNDS)]
    by_kernel = [round_trip(node, source, frames, markers) for frames in rounds]
    with vxlane(bench, netlink), bench.counting() as moved:
        for frames, kernel in zip(rounds, by_kernel, strict=True):
            stand(bench.maps, WORLD)
            seen = round_trip(node, source, frames, markers)
            assert seen == kernel, f"of {[frame.hex() for frame in frames]}"
    kinds = ((verdict.kind, count) for (_, verdict), count in moved.packets.items())
    bypassed = sum(count for kind, count in kinds if kind is VerdictKind.BYPASSED)
    assert ROUNDS * PER_ROUND / 4 < bypassed < ROUNDS * PER_ROUND
    assert (program, Verdict.MALFORMED) in moved.packets
    assert moved.packets[program, Verdict.NAT] > ROUNDS * PER_ROUND / 50
