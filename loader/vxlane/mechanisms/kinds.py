# SPDX-License-Identifier: Apache-2.0
"""The kinds of mechanisms that act on every packet, or change how a connection is tracked.

A bypassed packet does not meet them, so packets that may meet one are left to the kernel path. The
values are the names in `--ignore-mechanism`, `vxlane status` and docs/. Pure.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

Ranges = tuple[tuple[int, int], ...]
"""Numbers, as pairs of the first and the last of each run."""


class Kind(enum.Enum):
    """What a mechanism does."""

    LIMIT = "limit"
    QUOTA = "quota"
    CONNBYTES = "connbytes"
    STATISTIC = "statistic"
    PAYLOAD = "payload"
    HEADER = "header"
    LENGTH = "length"
    TIME = "time"
    SET = "set"
    REWRITE = "rewrite"
    MARK = "mark"
    QUEUE = "queue"
    LOG = "log"
    COPY = "copy"
    ACCOUNT = "account"
    HELPER = "helper"
    SYNPROXY = "synproxy"
    TPROXY = "tproxy"
    FLOWTABLE = "flowtable"
    NOTRACK = "notrack"
    ZONE = "zone"
    TIMEOUT = "timeout"
    SHAPER = "shaper"
    TC = "tc"
    XDP = "xdp"
    IPVS = "ipvs"
    UNKNOWN = "unknown"


MEANING = {
    Kind.LIMIT: "a rate limit (limit, hashlimit, rateest, connlimit)",
    Kind.QUOTA: "a quota of bytes or packets (quota, the counters of a set)",
    Kind.CONNBYTES: "a test of what became of a connection (connbytes, ct bytes, ct status)",
    Kind.STATISTIC: "a random or counted choice of packets (statistic, numgen)",
    Kind.PAYLOAD: "a test of a packet's content (string, u32, bpf, raw payload)",
    Kind.HEADER: "a test of header fields that differ within a flow (DSCP, TTL, MAC, FIN, options)",
    Kind.LENGTH: "a test of the packet's length",
    Kind.TIME: "a test of the time of day",
    Kind.SET: "a set that packets change (recent, SET, nft's add and update, meters)",
    Kind.REWRITE: "a rewrite of headers (DSCP, TOS, TTL, payload)",
    Kind.MARK: "a mark or class set on packets (MARK, CONNMARK, CLASSIFY)",
    Kind.QUEUE: "a queue to a program in user space (NFQUEUE, QUEUE)",
    Kind.LOG: "a log or a trace of packets (LOG, NFLOG, AUDIT, TRACE)",
    Kind.COPY: "a copy or a detour of packets (TEE, dup, fwd)",
    Kind.ACCOUNT: "accounting (nfacct, named counters, IDLETIMER, RATEEST)",
    Kind.HELPER: "a conntrack helper, which reads a connection's content",
    Kind.SYNPROXY: "SYNPROXY, which shifts a connection's sequence numbers",
    Kind.TPROXY: "TPROXY, which gives packets to a socket of the node",
    Kind.FLOWTABLE: "a flowtable, which takes a connection's timers over",
    Kind.NOTRACK: "connections that conntrack does not follow",
    Kind.ZONE: "connections that conntrack follows in another zone",
    Kind.TIMEOUT: "conntrack timeouts of a rule's own",
    Kind.SHAPER: "a qdisc that shapes, delays or drops",
    Kind.TC: "a tc filter or program",
    Kind.XDP: "an XDP program",
    Kind.IPVS: "IPVS, which translates connections by tables and timers of its own",
    Kind.UNKNOWN: "a match or a target that vxlane does not know, or rules that could not be read",
}

OF_A_CONNECTION = frozenset(
    {
        *(Kind.HELPER, Kind.SYNPROXY, Kind.TPROXY, Kind.FLOWTABLE),
        *(Kind.NOTRACK, Kind.ZONE, Kind.TIMEOUT),
    }
)
"""Kinds that act on a connection's first packet and bind the later ones. All other kinds matter
only to packets that may be bypassed, which are those of established connections."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The packets that a finding is about. None: nothing is known that narrows them."""

    sources: Ranges | None = None
    """IPv4 addresses."""
    destinations: Ranges | None = None
    ports: frozenset[str] | None = None
    """Names of the bridge ports that the packets come from or go to; prefixes if they end in *."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One mechanism that packets of pods may meet."""

    kind: Kind
    where: str
    """The rule's chain or the device, as a person can look it up."""
    scope: Scope = Scope()
    is_translated: bool = False
    """Only packets of flows that netfilter translates meet it."""
