# SPDX-License-Identifier: Apache-2.0
"""What comes out of the tunnel from the right peer, and yet stays on the kernel path."""

from __future__ import annotations

from dataclasses import replace

from frames import ARP, CE, DF, ECT0, ECT1, ETHERNET, IPV6, MF, NOT_ECT, UNREACHABLE, Icmp, Raw

from tables.from_nic import ANSWER, FULL, PONG, RESPONSE, UNCHECKED, carried, case, covered, inner
from vxlane.datapath.abi import Verdict

BAD_INNER = [
    case(verdict, fact, carried(frame))
    for verdict, fact, frame in (
        (Verdict.NOT_IP, "inner ARP", inner(ANSWER, ethertype=ARP)),
        (Verdict.NOT_IP, "inner IPv6", inner(ANSWER, ethertype=IPV6)),
        (Verdict.MALFORMED, "no inner frame", b""),
        (Verdict.MALFORMED, "a cut inner Ethernet header", bytes(13)),
        (Verdict.MALFORMED, "a cut inner IP header", bytes(inner(ANSWER))[: ETHERNET + 19]),
        (Verdict.MALFORMED, "inner IP version 6", inner(ANSWER, version=6)),
        (Verdict.MALFORMED, "an inner total length above", inner(ANSWER, total_length=38)),
        (Verdict.MALFORMED, "bytes behind the inner packet", inner(ANSWER, padding=b"\0")),
        (Verdict.MALFORMED, "a wrong inner checksum", inner(ANSWER, checksum=1)),
        (Verdict.MALFORMED, "a cut inner TCP header", inner(Raw(6, bytes(19)))),
        (Verdict.IP_OPTIONS, "inner IP options", inner(ANSWER, options=bytes(4))),
        (Verdict.FRAGMENT, "an inner first fragment", inner(ANSWER, fragment=MF)),
        (Verdict.FRAGMENT, "an inner last fragment", inner(ANSWER, fragment=DF | 185)),
        (Verdict.PROTOCOL, "inner SCTP", inner(Raw(132, bytes(16)))),
        (
            Verdict.PROTOCOL,
            "an inner ICMP error",
            inner(Icmp(kind=UNREACHABLE, identifier=77)),
        ),
        (Verdict.PROTOCOL, "an inner echo with a code", inner(replace(PONG, code=1))),
        (Verdict.TTL, "inner TTL 1", inner(ANSWER, ttl=1)),
        (Verdict.TTL, "inner TTL 0", inner(ANSWER, ttl=0)),
        (Verdict.TOO_BIG, "above the pod's MTU", inner(replace(FULL, payload=bytes(1423)))),
    )
]

SUPER_PACKETS = [
    case(
        Verdict.GSO,
        "a UDP super-packet",
        carried(inner(replace(ANSWER, payload=bytes(2800)))),
        gso_size=1400,
    ),
    case(
        Verdict.TOO_BIG,
        "a TCP super-packet whose segments exceed the MTU",
        carried(inner(replace(RESPONSE, payload=bytes(2900)))),
        gso_size=1411,
    ),
    case(
        Verdict.REFUSED,
        "a super-packet of a kind that can't be taken out",
        carried(inner(replace(RESPONSE, payload=bytes(2800)))),
        gso_size=1400,
    ),
]

UNSEEN_DAMAGE = [
    case(
        Verdict.NO_CHECKSUM,
        "UDP without a checksum, in a tunnel that has one",
        covered(inner(UNCHECKED)),
    )
]

# RFC 6040 calls these out of order or dangerous: the kernel logs, drops or treats them as L4S.
ECN = [
    case(
        Verdict.ECN,
        f"ECN {out} outside and {within} inside",
        carried(inner(ANSWER, tos=within), tos=out),
    )
    for out, within in (
        (ECT0, NOT_ECT),
        (ECT1, NOT_ECT),
        (CE, NOT_ECT),
        (ECT1, ECT0),
        (ECT1, CE),
    )
]

CASES = [*BAD_INNER, *SUPER_PACKETS, *UNSEEN_DAMAGE, *ECN]
