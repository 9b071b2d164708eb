# SPDX-License-Identifier: Apache-2.0
"""The agent's configuration as one frozen value, and flannel's net-conf.json.

Pure but for reading that file and warning of it. `vxlane.cli.agent_options` has the command line's
spelling.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from vxlane.datapath.attach import Method
from vxlane.datapath.programs import Constants
from vxlane.errors import ConfigError
from vxlane.host.firewall import Forward, Masquerade
from vxlane.host.underlay import Choice
from vxlane.mechanisms.kinds import Kind
from vxlane.sources.model import Backend
from vxlane.sources.wire import net_conf, section, unknown_keys

log = logging.getLogger(__name__)

DEFAULT_PORT = 8472
"""The kernel's, and so flannel's: older than the IANA port 4789."""

SUBNET_FILE = Path("/run/flannel/subnet.env")
"""Where flanneld tells CNI plugins of the node's network."""

SUBNET_VARIABLE = "FLANNELD_SUBNET_FILE"
"""What says that it is elsewhere."""


class Mode(enum.Enum):
    """Which program makes the overlay."""

    OWN = "own"
    """vxlane is the flannel backend: it makes the device, entries and rules."""
    ADOPT = "adopt"
    """flanneld or k3s makes them; vxlane only reads them and accelerates."""


class PodSource(enum.Enum):
    """Who tells the agent of new pods."""

    PLUGIN = "plugin"
    """The CNI plugin."""
    WATCH = "watch"
    """The runtime's cache, which the agent follows."""
    BOTH = "both"
    """Both; the first one counts."""


@dataclass(frozen=True, slots=True)
class Network:
    """flannel's net-conf.json, which is the same on all nodes."""

    cidr: IPv4Network | None = None
    """The network of all pods. None: the source of nodes knows it."""
    backend: Backend = Backend.VXLAN
    vni: int = 1
    port: int = DEFAULT_PORT
    mtu: int = 0
    """Of the underlay, bytes; 0: that of its interface."""
    is_gbp: bool = False
    learns: bool = False
    routes_directly: bool = False
    """Peers of the same L2 are reached by a plain route."""
    uses_nftables: bool = False
    is_ipv4_alone: bool = True
    """Pods have IPv4 and no IPv6."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where an HTTP server listens."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of one agent."""

    node_name: str
    state: Path
    mode: Mode = Mode.OWN
    origin: str = ""
    """The kind of source and its prefix. What was saved from another origin is not used."""
    network: Network = field(default_factory=Network)
    choice: Choice = field(default_factory=Choice)
    subnet_file: Path = SUBNET_FILE
    masquerade: Masquerade = Masquerade.OFF
    forward: Forward = Forward.ACCEPT
    has_blackhole: bool = False
    """Whether to make a blackhole route for addresses of this node's pod CIDR that no pod has."""
    rules_interval: float = 5.0
    """Seconds between comparisons of the rules. Changes made by nftables have events."""
    method: Method = Method.AUTO
    constants: Constants = field(default_factory=Constants)
    """Constants of the programs. VNI and port are replaced by the overlay's."""
    revalidate: float = 30.0
    """Seconds that the approval of a flow holds at most."""
    ignored: frozenset[Kind] = frozenset()
    """Mechanisms that are no reason to leave packets to the kernel path."""
    untracks: bool = False
    """The kernel path's tunnel packets are not tracked by conntrack."""
    clears_unavailable: bool = True
    """Tell Kubernetes that the node's network is up."""
    ready_file: Path | None = None
    pod_source: PodSource = PodSource.BOTH
    caches: tuple[Path, ...] = ()
    """Directories of libcni's cache, each with `results` and `networks`."""
    cni_conf_dir: Path | None = None
    """Where the runtime finds its CNI lists. None: where its configuration says."""
    host_root: Path = Path("/")
    """Where the node's root directory is mounted."""


def read_network(path: Path) -> Network:
    """The net-conf.json at `path`; ConfigError names the key that is wrong."""
    try:
        text = path.read_bytes()
    except OSError as error:
        advice = "give --net-config-path a file that can be read"
        raise ConfigError(f"{path}: {error.strerror}; {advice}") from None
    try:
        network = parse_network(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    warn_of_unknown(text, str(path))
    return network


def warn_of_unknown(text: str | bytes, place: str) -> None:
    """Log the keys of the net-conf.json in `place` that count for nothing.

    flannel is silent of them, and refuses none: a file that it takes has to do here too.
    """
    if unknown := unknown_keys(text):
        keys = ", ".join(unknown)
        log.warning("%s: flannel has no %s; that is ignored, check how it is spelt", place, keys)


def parse_network(text: str | bytes) -> Network:
    """The content of a net-conf.json. Unknown keys are left alone."""
    top = net_conf(text)
    backend = section(top.get("backend") or {})
    if "type" not in backend:
        advice = 'vxlane has none; write "Backend": {"Type": "vxlan"}'
        raise ConfigError(f"has no Backend.Type, which is flannel's backend udp, and {advice}")
    kind = Backend.of(str(backend.get("type", "")).lower())
    if kind is Backend.OTHER:
        known = ", ".join(item.value for item in Backend if item is not Backend.OTHER)
        raise ConfigError(f"Backend.Type {backend.get('type')!r} is not one of vxlane's: {known}")
    return Network(
        cidr=_cidr(top.get("network")),
        backend=kind,
        vni=_integer(backend, "vni", default=1, most=(1 << 24) - 1),
        port=_integer(backend, "port", default=0, most=65535) or DEFAULT_PORT,
        mtu=_integer(backend, "mtu", default=0, most=65535),
        is_gbp=_flag(backend, "gbp"),
        learns=_flag(backend, "learning"),
        routes_directly=_flag(backend, "directrouting"),
        uses_nftables=_flag(top, "enablenftables"),
        is_ipv4_alone=_flag(top, "enableipv4", default=True) and not _flag(top, "enableipv6"),
    )


def _cidr(text: object) -> IPv4Network | None:
    try:
        return IPv4Network(str(text)) if text else None
    except ValueError as error:
        raise ConfigError(f"Network {text!r} is not an IPv4 network: {error}") from None


def _integer(section: Mapping[str, Any], key: str, *, default: int, most: int) -> int:
    value = section.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ConfigError(f"{key} must be a number from 0 to {most}, not {value!r}")
    return value


def _flag(section: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    value = section.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false, not {value!r}")
    return value
