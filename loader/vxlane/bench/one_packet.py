# SPDX-License-Identifier: Apache-2.0
"""A bypassed packet in test runs of the kernel (BPF_PROG_TEST_RUN), by programs of a lab's nodes.

The datagram is one of a flow that has just been measured, as its pod sends it. What from_pod makes
of it is what from_nic of the other node gets. A redirect is only an answer here: nothing is sent.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import dataclass

from vxlane.connectivity.icmp import checksum
from vxlane.datapath import loose, syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.datapath.records import Flow
from vxlane.errors import LabError
from vxlane.lab import namespaces
from vxlane.lab.lab import Lab
from vxlane.lab.plan import LabNode, LabPod
from vxlane.lab.underlay import NIC, ip
from vxlane.runtime import netns
from vxlane.util.names import mac_octets

_REDIRECT = 7
"""TC_ACT_REDIRECT (linux/pkt_cls.h): what a program answers for a packet that it bypasses."""
_CONTEXT, _IFINDEX_AT = 192, 40
"""struct __sk_buff: its size, and where ifindex is (linux/bpf.h)."""
RUNS = 3000
_PAYLOAD = bytes(64)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run of a program took, ns: the least of RUNS, with some 80 of the test run itself."""

    program: Program
    ns: int


def costs(lab: Lab, client: LabPod, server: LabPod) -> list[Cost]:
    """Of from_pod at the client's node and from_nic at the server's, for a datagram between them.

    LabError: no flow of UDP between the two is known, or it is not bypassed.
    """
    sender, receiver = lab.node(client.node), lab.node(server.node)
    with Maps.open(pin_directory(sender.directory)) as maps:
        flow = _latest(maps, client, server)
        pod = maps.pods()[client.address]
        frame = _frame(flow, pod.gateway_mac, pod.mac)
        sent, pushed = _run(sender, Program.FROM_POD, frame, pod.ifindex)
    nic = json.loads(ip(receiver.name, f"-j link show dev {NIC}"))[0]
    came = mac_octets(nic["address"]) + pushed[6:]  # the neighbour layer would have written it
    received, _ = _run(receiver, Program.FROM_NIC, came, nic["ifindex"])
    return [Cost(Program.FROM_POD, sent), Cost(Program.FROM_NIC, received)]


def _latest(maps: Maps, client: LabPod, server: LabPod) -> Flow:
    flows = [
        flow
        for flow in maps.flows_between(client.address, server.address)
        if flow.tuple.protocol == socket.IPPROTO_UDP and flow.seen_out
    ]
    if not flows:
        raise LabError(f"no flow of UDP from {client.name} to {server.name} is known")
    return max(flows, key=lambda flow: flow.seen_out)


def _frame(flow: Flow, destination: str, source: str) -> bytes:
    """A datagram of that flow as its pod sends it."""
    local, remote = flow.tuple.local.packed, flow.tuple.remote.packed
    length = 8 + len(_PAYLOAD)
    ports = struct.pack("!HH", flow.tuple.local_port, flow.tuple.remote_port)
    pseudo = local + remote + struct.pack("!BBH", 0, socket.IPPROTO_UDP, length)
    udp = ports + struct.pack("!HH", length, 0) + _PAYLOAD
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp)) + udp[8:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0)
    head = head[:10] + struct.pack("!H", checksum(head + local + remote))
    ethernet = mac_octets(destination) + mac_octets(source) + b"\x08\x00"
    return ethernet + head + local + remote + udp


def _run(node: LabNode, program: Program, frame: bytes, ifindex: int) -> tuple[int, bytes]:
    """The least time of a run, ns, and the frame as the program left it."""
    context = bytearray(_CONTEXT)
    struct.pack_into("=I", context, _IFINDEX_AT, ifindex)
    descriptor = syscall.obj_get(pin_directory(node.directory) / program.label)
    try:
        with (
            netns.entered(namespaces.path(node.name)),  # the interface is one of this namespace
            syscall.explained("run a program over a frame"),
        ):
            runs = [
                loose.prog_test_run(descriptor, frame, context=bytes(context)) for _ in range(RUNS)
            ]
    finally:
        os.close(descriptor)
    if any(answer != _REDIRECT for answer, _, _ in runs):
        raise LabError(f"{program.label} of {node.name} did not bypass a packet of a known flow")
    return min(ns for _, _, ns in runs), runs[0][1]
