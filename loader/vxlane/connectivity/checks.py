# SPDX-License-Identifier: Apache-2.0
"""The tests from a probe pod to a peer, to another pod, and to a Service.

Each is a function that returns a Finding and raises nothing for what it finds wrong.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

from vxlane.connectivity import bypassed, echo, icmp
from vxlane.connectivity.bypassed import Trips
from vxlane.connectivity.icmp import Echo
from vxlane.connectivity.peers import Known, fault
from vxlane.connectivity.pod import ProbePod, why_not_added
from vxlane.connectivity.result import Finding, Result
from vxlane.datapath.maps import Maps
from vxlane.runtime import netns
from vxlane.why import node
from vxlane.why.ends import NAMES

_PINGS = 30
_PING_SIZE = 84
"""Bytes of the IP packet, as ping(8) sends."""
_PING_TIMEOUT = 1.0
_TRIES = 2
"""For one echo, which may get lost."""
_TCP_TIMEOUT = 3.0
_UDP_TIMEOUT = 1.0
_ENOUGH = 0.5
"""Of the round trips. The first ones are always the kernel path's, and an approval may be
withdrawn meanwhile."""

_INTENDED = {"no_agent", "guarded", "judged"}
"""Verdicts of all of the pod's packets: someone wants it so, or vxlane status says why."""

_WHOSE = "; is it a pod of vxlane test --serve? For a server of your own add its port"
_NO_ANSWERER = "needs --target: a pod that vxlane test --serve made on the other node"
NO_TARGET = tuple(Finding("-", test, Result.SKIPPED, _NO_ANSWERER) for test in ("tcp", "udp"))
"""What is not tried without a target."""
NO_PEERS = tuple(
    Finding("peers", test, Result.SKIPPED, "another end was named; 'vxlane test' alone tests peers")
    for test in ("entries", "ping", "mtu", "bypass")
)
"""What is not tried when only a target or a Service is named."""
NO_SERVICE = Finding("-", "service", Result.SKIPPED, "needs --service ADDRESS:PORT")


class Prober:
    """Sends from `pod`; `maps` are those pinned in `state`, None where there are none."""

    def __init__(self, pod: ProbePod, maps: Maps | None, state: Path) -> None:
        self._pod = pod
        self._maps = maps
        self._state = state

    def to_peer(self, peer: Known) -> Iterator[Finding]:
        """What needs no helper on the other node."""
        to = str(peer)
        yield _entries(to, peer)
        ends = (peer.vtep, peer.bridge)
        yield from self._echoes(to, next(filter(self._is_there, ends), peer.vtep))

    def to_pod(
        self, address: IPv4Address, port: int | None, peer: Known | None
    ) -> Iterator[Finding]:
        """To a pod of any node, `peer` if it is another one.

        Without a port it is a pod that `vxlane test --serve` made, and what it sends back is
        compared. With one, a server of any kind is connected to.
        """
        to = str(address)
        if peer:
            yield _entries(to, peer)
        if port is None:
            yield from self._echoes(to, address, shares=False)
            yield from self._tcp_echo(to, address)
            yield self._udp_echo(to, address)
        else:
            yield from self._echoes(to, address)
            yield self._connects(f"{to}:{port}", "tcp", address, port)
            yield Finding(to, "udp", Result.SKIPPED, "a server of your own may be silent: see tcp")

    def to_service(self, address: IPv4Address, port: int) -> Finding:
        """A TCP connection to a Service, which netfilter leads to one of its pods."""
        return self._connects(f"{address}:{port}", "service", address, port)

    def _socket(self, make: Callable[[], socket.socket]) -> socket.socket:
        with netns.entered(self._pod.netns):
            return make()

    def _is_there(self, address: IPv4Address) -> bool:
        with self._socket(icmp.raw_socket) as raw:
            return _answers(Echo(raw, address, 1), icmp.SMALLEST_PATH, _PING_TIMEOUT)

    def _echoes(self, to: str, address: IPv4Address, *, shares: bool = True) -> Iterator[Finding]:
        """Ping and path MTU, and if it `shares`, how many of the pings were bypassed."""
        with self._socket(icmp.raw_socket) as raw:
            found = Echo(raw, address, identifier=2)
            begun, took = _pinged(found)
            yield _ping(to, address, took)
            if not took:
                for test in ("mtu", "bypass") if shares else ("mtu",):
                    yield Finding(to, test, Result.SKIPPED, "no ping is answered")
                return
            trips = Trips(socket.IPPROTO_ICMP, self._pod.address, address, found.identifier, begun)
            share = self._share(to, trips)  # before other packets of the flow
            yield _mtu(to, found, timeout=0.1 + 4 * max(took) / 1e9)
            if shares:
                yield share

    def _tcp_echo(self, to: str, address: IPv4Address) -> Iterator[Finding]:
        with self._socket(socket.socket) as connection:
            connection.settimeout(_TCP_TIMEOUT)
            try:
                connection.connect((str(address), echo.PORT))
                begun = echo.round_trips(connection, pace=bypassed.PACE)
            except (OSError, ValueError) as error:
                yield Finding(to, "tcp", Result.FAILED, _why(error) + _WHOSE)
                return
            yield Finding(to, "tcp", Result.PASSED, f"{len(begun)} round trips of 64 B and 32 kB")
            port = connection.getsockname()[1]
            # While it is open: what closes a connection withdraws its approval.
            trips = Trips(socket.IPPROTO_TCP, self._pod.address, address, port, begun)
            yield self._share(to, trips)

    def _udp_echo(self, to: str, address: IPv4Address) -> Finding:
        try:
            with self._socket(icmp.raw_socket) as raw:
                sizes = echo.datagram_sizes(Echo(raw, address, 3).mtu)
            with self._socket(lambda: socket.socket(type=socket.SOCK_DGRAM)) as datagrams:
                datagrams.settimeout(_UDP_TIMEOUT)
                datagrams.connect((str(address), echo.PORT))
                lost = [size for size in sizes if not echo.comes_back(datagrams, size)]
        except OSError as error:
            return Finding(to, "udp", Result.FAILED, _why(error))
        shown = ", ".join(f"{size:,}" for size in lost or sizes)
        if lost:
            return Finding(to, "udp", Result.FAILED, f"datagrams of {shown} bytes are not answered")
        return Finding(to, "udp", Result.PASSED, f"datagrams of {shown} bytes came back")

    def _connects(self, to: str, test: str, address: IPv4Address, port: int) -> Finding:
        with self._socket(socket.socket) as connection:
            connection.settimeout(_TCP_TIMEOUT)
            try:
                connection.connect((str(address), port))
            except OSError as error:
                return Finding(to, test, Result.FAILED, _why(error))
        return Finding(to, test, Result.PASSED, "connected")

    def _share(self, to: str, trips: Trips) -> Finding:
        """How much of `trips` was bypassed on this node, and if that is little, why."""
        if self._maps is None:
            said = "no programs are pinned on this node: vxlane status"
            return Finding(to, "bypass", Result.SKIPPED, said)
        if self._pod.address not in self._maps.pods():
            return Finding(to, "bypass", Result.SKIPPED, why_not_added(self._state))
        flow = bypassed.record_of(self._maps.flows(), trips)
        count = bypassed.count(flow, trips, self._maps.settings())
        share = count / len(trips.begun)
        said = f"{count} of {len(trips.begun)} round trips at least"
        if share >= _ENOUGH:
            return Finding(to, "bypass", Result.PASSED, said, round(share, 6))
        verdict, reason = self._why(trips)
        result = Result.SKIPPED if verdict in _INTENDED else Result.FAILED
        return Finding(to, "bypass", result, f"{said}; {verdict}: {reason}", round(share, 6))

    def _why(self, trips: Trips) -> tuple[str, str]:
        """The verdict that keeps the flow from being bypassed, and its reason."""
        protocol = NAMES[trips.protocol]
        source, destination = f"{trips.local}:{trips.port}", str(trips.remote)
        answer = node.why(self._state, source, destination, protocol)["flows"][0]
        return answer["verdict"], answer["reason"]


def _entries(to: str, peer: Known) -> Finding:
    wrong = fault(peer)
    said = wrong or f"they lead to {peer.address}"
    return Finding(to, "entries", Result.FAILED if wrong else Result.PASSED, said)


def _pinged(found: Echo) -> tuple[list[int], list[int]]:
    """When each ping began, and how long each took that was answered, ns."""
    begun: list[int] = []
    took: list[int] = []
    for _ in range(_PINGS):
        begun.append(time.monotonic_ns())
        if found.answers(_PING_SIZE, timeout=_PING_TIMEOUT):
            took.append(time.monotonic_ns() - begun[-1])
        elif not took:
            break  # what does not answer the first one is not waited for 30 times
        time.sleep(bypassed.PACE)
    return begun, took


def _ping(to: str, address: IPv4Address, took: list[int]) -> Finding:
    came = f"{len(took)} of {_PINGS} answers of {address}"
    if not took:
        return Finding(to, "ping", Result.FAILED, f"{address} does not answer")
    median = statistics.median(took) / 1000
    result = Result.PASSED if len(took) == _PINGS else Result.FAILED
    return Finding(to, "ping", result, f"{came}, median {median:,.0f} us", round(median, 3))


def _mtu(to: str, found: Echo, *, timeout: float) -> Finding:
    """`timeout`: seconds. Many sizes get no answer, so it is little more than the slowest ping."""
    wanted = found.mtu
    size = icmp.largest(lambda size: _answers(found, size, timeout), wanted)
    if size == wanted:
        return Finding(to, "mtu", Result.PASSED, f"{size:,} bytes, the pod's MTU", size)
    came = f"only {size:,}" if size else "none"
    said = f"{came} of the pod's {wanted:,} bytes: the way is narrower than pods take it for"
    return Finding(to, "mtu", Result.FAILED, said, size)


def _answers(found: Echo, size: int, timeout: float) -> bool:
    return any(found.answers(size, timeout=timeout) for _ in range(_TRIES))


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_TCP_TIMEOUT:g} s"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)
