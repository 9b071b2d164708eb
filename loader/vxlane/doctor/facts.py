# SPDX-License-Identifier: Apache-2.0
"""What the checks go by: a node's facts, read once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from vxlane.datapath.records import IPAddress, Settings
from vxlane.host.devices import Device
from vxlane.host.entries import FdbEntry, Neighbour, Route
from vxlane.host.nexthops import NextHop
from vxlane.host.offloads import Feature
from vxlane.probes.helpers import Result

Json = dict[str, Any]

Sysctls = Mapping[str, str]
"""Kernel settings by their names; one that this kernel does not have is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The kernel, and what programs for it are compiled with."""

    release: str
    probes: tuple[Result, ...]
    has_compiled: bool
    """Whether the package brings them compiled."""
    has_bcc: bool
    headers: str
    """Which kernel headers there are; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The agent, and what it has pinned."""

    state: str
    """Its state directory."""
    pid: int | None
    """None: no agent lives."""
    status: Json
    """What it says of itself, with `error` if it does not answer."""
    mode: str
    """`own` or `adopt`, also of one that is dead; empty: not known."""
    is_mounted: bool
    """Whether a bpffs is mounted where its pins belong."""
    maps_error: str
    """Why the pinned maps can't be opened; empty: they are."""
    settings: Settings | None
    now: int
    """ns of CLOCK_MONOTONIC."""

    @property
    def is_bypassing(self) -> bool:
        """Whether the programs go by their maps now."""
        return self.settings is not None and self.settings.lease_until > self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Somebody else's tc filter, TCX program or XDP program on a device."""

    hook: str
    """ingress, egress or xdp."""
    name: str
    """As the program or filter is named; empty: it has no name."""
    priority: int = 0
    """Of a tc filter; 0: it is no filter."""
    link: int = 0
    """ID of the link that holds a program by TCX; 0: none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A device on the path of pods' packets."""

    device: Device
    programs: tuple[Program, ...] = ()

    @property
    def name(self) -> str:
        """The device's name."""
        return self.device.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """A VXLAN device."""

    name: str
    vni: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The devices on the path of pods' packets, by what they are."""

    vtep: Link | None
    nic: Link | None
    bridges: tuple[Link, ...] = ()
    veths: tuple[Link, ...] = ()
    """Host ends of pods' veths."""
    tunnels: tuple[Tunnel, ...] = ()
    """Every VXLAN device, ours too."""
    features: Mapping[str, Feature]
    """Of the NIC."""
    pod_mtu: int = 0
    """What new pods get (FLANNEL_MTU of subnet.env); 0: not told."""
    names: frozenset[str] = frozenset()
    """Of all devices."""

    @property
    def all(self) -> tuple[Link, ...]:
        """In the order of a packet that leaves."""
        ends = [link for link in (self.vtep, self.nic) if link]
        return (*self.veths, *self.bridges, *ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEnd:
    """A pod's interface, as the pod has it."""

    pod: str
    """Its name, or its container's ID."""
    ifname: str
    namespace: str
    """The file of its network namespace; empty: not known."""
    told: str
    """The MAC that the agent was told, and that the programs go by."""
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Netfilter's rules, as far as checks go by them."""

    chains: frozenset[str] = frozenset()
    """Names of all chains, nftables' and iptables-nft's."""
    invalid: tuple[str, ...] = ()
    """Chains with a rule that drops what conntrack calls INVALID."""
    legacy: Mapping[str, int]
    """Tables of iptables-legacy -> how many rules; chains of nat are left out."""
    sets: tuple[str, ...] = ()
    """ipsets that rules refer to."""
    flowtables: tuple[str, ...] = ()
    """Family, table and name, as nft takes them."""
    error: str = ""
    """Why some rules could not be read; empty: all were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A peer as the source of nodes, or else the programs' map, has it."""

    name: str
    cidr: IPv4Network
    address: IPv4Address
    vtep_mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The other nodes: as they should be, and as the kernel has them."""

    vtep: str
    """Name of the VXLAN device; empty: there is none."""
    port: int
    expected: Mapping[IPv4Network, Expected]
    """Empty: no source says which peers there are."""
    routes: tuple[Route, ...]
    """Over the VXLAN device."""
    direct: frozenset[tuple[int, int]] = frozenset()
    """Network and prefix length of routes to a gateway over other devices."""
    neighbours: Mapping[int, Neighbour]
    """Permanent ones at the VXLAN device, by address."""
    forwarding: Mapping[str, FdbEntry]
    """By MAC."""
    ways: Mapping[IPv4Address, NextHop]
    """To each underlay address of a peer."""
    states: Mapping[tuple[int, IPAddress], int]
    """NUD_* by ifindex and address."""
    silent: frozenset[IPv4Address] = frozenset()
    """Peers that the bypass has sent packets to and got none from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conntrack:
    """The table of connections."""

    count: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """The CNI plugin, where this node's runtime looks for it."""

    conf_dir: str
    program: str
    """Where its executable belongs."""
    is_called: bool
    """A list of the network has it."""
    is_there: bool
    """Its executable can be run."""
    is_installed: bool
    """`vxlane install` was run, and `vxlane uninstall` was not."""
    error: str = ""
    """Why the runtime's files can't be read; empty: they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known of a node."""

    kernel: Kernel
    agent: Agent
    sysctls: Sysctls
    conntrack: Conntrack | None
    """None: the kernel follows no connections."""
    reverse_path_drops: int
    """Packets that rp_filter has dropped (IPReversePathFilter of nstat)."""
    links: Links
    pods: tuple[PodEnd, ...] = ()
    rules: Rules
    peers: Peers
    plugin: Plugin
