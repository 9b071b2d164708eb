# SPDX-License-Identifier: Apache-2.0
"""What a person asks for, as the struct trace_filter that the tracer goes by in the kernel."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network
from typing import Any

from vxlane.datapath.abi import Verdict, VerdictKind
from vxlane.datapath.records import Flow, IPAddress, IPNetwork, Peer, Pod, Tuple, mapped
from vxlane.datapath.tracer import new_filter
from vxlane.errors import OptionError
from vxlane.trace.event import PROTOCOLS
from vxlane.trace.names import Names

VERDICT_WORDS = sorted(
    {verdict.label for verdict in Verdict} | {kind.value for kind in VerdictKind}
)
"""The names of verdicts, and of kinds, each of which means all of its verdicts."""
_FLOW = re.compile(r"(\w+)\s+(\S+):(\d+)\s+(\S+):(\d+)(?!\S)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of the command line; None or empty lets every packet through."""

    pod: str | None = None
    peer: str | None = None
    host: str | None = None
    proto: str | None = None
    port: int | None = None
    verdicts: tuple[str, ...] = ()
    flow: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What this node knows: names resolve by it."""

    names: Names
    pods: Mapping[IPAddress, Pod]
    peers: Mapping[IPNetwork, Peer]
    flows: Iterable[Flow]


def build(wanted: Wanted, known: Known) -> Any:
    """A struct trace_filter. OptionError names the filter that means nothing here."""
    made = new_filter()
    if wanted.pod is not None:
        _fill(made.pod, mapped(known.names.pods.find(wanted.pod, known.pods)), "--pod")
    if wanted.host is not None:
        _fill(made.host, mapped(_address(wanted.host, "--host")), "--host")
    if wanted.peer is not None:
        network = _peer(wanted.peer, known)
        _fill(made.peer_mask, _mask(network), "--peer")
        ctypes.memmove(made.peer, mapped(network.network_address), ctypes.sizeof(made.peer))
    if wanted.proto is not None:
        made.protocol = _protocol(wanted.proto, "--proto")
    made.port = wanted.port or 0
    if wanted.verdicts:
        made.verdicts = sum(1 << verdict for verdict in _verdicts(wanted.verdicts))
    if wanted.flow is not None:
        flow = _flow(wanted.flow)
        if made.protocol not in {0, flow.protocol}:
            raise OptionError(
                "--flow has a protocol of its own, not that of --proto; leave one out"
            )
        _fill_flow(made, flow, known.flows)
    return made


def notes(wanted: Wanted, known: Known) -> list[str]:
    """What is not there now, a sentence each: it may still come. OptionError as of `build`."""
    said = []
    if wanted.pod is not None:
        pod = known.names.pods.find(wanted.pod, known.pods)
        if pod not in known.pods:
            said.append(f"no accelerated pod of this node has the address {pod}; see 'vxlane pods'")
    if wanted.peer is not None:
        network = _peer(wanted.peer, known)
        if not any(network.overlaps(cidr) for cidr in known.peers):
            said.append(f"no peer has a pod CIDR in {network}; see 'vxlane peers'")
    return said


def _address(word: str, option: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(word)
    except ValueError:
        raise OptionError(f"{option} {word!r}: not an IP address") from None


def _peer(word: str, known: Known) -> IPNetwork:
    """By the node's name, its underlay address, or the CIDR of its pods."""
    if word in known.names.nodes:
        return known.names.nodes[word][1]
    for cidr, peer in known.peers.items():
        if word in (str(peer.address), str(cidr)):
            return cidr
    try:
        return ip_network(word)
    except ValueError:
        raise OptionError(
            f"--peer {word!r}: no such node; give a CIDR or an address that 'vxlane peers' lists"
        ) from None


def _mask(network: IPNetwork) -> bytes:
    if isinstance(network, IPv4Network):
        return b"\xff" * 12 + network.netmask.packed
    return network.netmask.packed


def _protocol(word: str, option: str) -> int:
    if word.isdecimal() and 0 < int(word) < 256:
        return int(word)
    if word not in PROTOCOLS:
        raise OptionError(f"{option} {word!r}: give {', '.join(PROTOCOLS)} or a number up to 255")
    return PROTOCOLS[word]


def _verdicts(words: Iterable[str]) -> set[Verdict]:
    return {verdict for verdict in Verdict if {verdict.label, verdict.kind.value} & {*words}}


def _flow(text: str) -> Tuple:
    """A line of `vxlane flows`: protocol, local end, remote end."""
    found = _FLOW.match(text.strip())
    if not found:
        raise OptionError(
            f"--flow {text!r}: give a flow as 'vxlane flows' prints it, such as"
            " 'tcp 10.42.1.5:40000 10.42.2.7:80'"
        )
    protocol, local_word, local_port, remote_word, remote_port = found.groups()
    local, remote = _address(local_word, "--flow"), _address(remote_word, "--flow")
    if local.version != remote.version:
        raise OptionError(f"--flow: {local} and {remote} are of two IP versions; give one flow's")
    return Tuple(
        local,
        remote,
        _number(local_port),
        _number(remote_port),
        _protocol(protocol, "--flow"),
    )


def _number(word: str) -> int:
    if int(word) > 0xFFFF:
        raise OptionError(f"--flow: {word} is not a port")
    return int(word)


def _fill_flow(made: Any, flow: Tuple, records: Iterable[Flow]) -> None:
    """The flow, and what netfilter makes of it where its record says so."""
    views = (view for record in records for view in record.views)
    behind = next((view.behind for view in views if view.tuple == flow), flow)
    for prefix, one in (("flow", flow), ("nat", behind)):
        _fill(getattr(made, f"{prefix}_local"), mapped(one.local), "--flow")
        _fill(getattr(made, f"{prefix}_remote"), mapped(one.remote), "--flow")
        setattr(made, f"{prefix}_local_port", one.local_port)
        setattr(made, f"{prefix}_remote_port", one.remote_port)
    made.protocol = flow.protocol


def _fill(array: Any, data: bytes, option: str) -> None:
    """OptionError: to the tracer zeros are any address, so they would not be heeded."""
    if not any(data):
        raise OptionError(f"{option}: a packet can't be told by ::; leave the option out")
    ctypes.memmove(array, data, ctypes.sizeof(array))
