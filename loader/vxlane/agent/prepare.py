# SPDX-License-Identifier: Apache-2.0
"""Makes a `Config` and a source of nodes from the command line's values."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from vxlane.agent.answers import Answers
from vxlane.config import (
    Config,
    Mode,
    Network,
    PodSource,
    parse_network,
    read_network,
    warn_of_unknown,
)
from vxlane.datapath.attach import Method
from vxlane.datapath.programs import Constants, Strictness
from vxlane.errors import ConfigError, OptionError, SourceError
from vxlane.host import subnet_env
from vxlane.host.devices import Devices
from vxlane.host.firewall import Forward, Masquerade
from vxlane.host.underlay import Choice
from vxlane.mechanisms.kinds import Kind
from vxlane.overlay.chosen import ChosenUnderlay
from vxlane.overlay.node_cache import NodeCache
from vxlane.runtime.cni_places import CACHE, below
from vxlane.sources.etcd.access import DEFAULT_ENDPOINTS, EtcdAccess, config_key
from vxlane.sources.etcd.publisher import Term
from vxlane.sources.etcd.source import EtcdSource, network_config
from vxlane.sources.file import FileSource
from vxlane.sources.kubernetes.access import find_access
from vxlane.sources.kubernetes.source import KubernetesSource, own_node_name
from vxlane.sources.none import NoSource
from vxlane.sources.snapshot import NodeSource

Values = Mapping[str, Any]
"""Option name (with underscores) -> value, as click parsed it."""

_NET_CONFIG = Path("/etc/kube-flannel/net-conf.json")
_PAIRS = (("--etcd-username", "--etcd-password"), ("--etcd-certfile", "--etcd-keyfile"))


def prepare(values: Values) -> tuple[Config, NodeSource]:
    """The configuration, and the source of nodes that is not started yet.

    ConfigError: these values can't work. SourceError: they can't work now.
    """
    if values["public_ipv6"]:
        raise OptionError("--public-ipv6 is not supported; leave it out")
    if values["nodes_file"]:
        # flanneld takes --kube-subnet-mgr with --etcd-endpoints, and heeds the first.
        for other in ("--kube-subnet-mgr", "--etcd-endpoints"):
            if values[_key(other)]:
                raise OptionError(f"nodes come from one place; give --nodes-file or {other}")
        name, network = values["node_name"] or socket.gethostname(), _network(values)
        source = FileSource(values["nodes_file"], name, network.backend)
        return _config(values, name, network, origin="file"), source
    if values["kube_subnet_mgr"]:
        return _with_kubernetes(values)
    if values["etcd_endpoints"] or values["mode"] == Mode.OWN.value:
        return _with_etcd(values)
    name = values["node_name"] or socket.gethostname()
    return _config(values, name, _network(values), origin="none"), NoSource()


def _with_kubernetes(values: Values) -> tuple[Config, NodeSource]:
    kubeconfig = Path(values["kubeconfig_file"]) if values["kubeconfig_file"] else None
    access = find_access(kubeconfig, os.environ, server=values["kube_api_url"] or "")
    prefix = values["kube_annotation_prefix"]
    origin = f"kubernetes {prefix}"
    answers = Answers(values["state_dir"], origin)
    name = values["node_name"] or answers.to("name", lambda: own_node_name(access, os.environ))
    # In adopt the overlay is there, and k3s has no such file: then the kernel tells all of it.
    is_read = values["mode"] == Mode.OWN.value or _NET_CONFIG.exists()
    network = _network(values, default=_NET_CONFIG if is_read else None)
    source = KubernetesSource(access, name, prefix=prefix)
    return _config(values, name, network, origin=origin), source


def _with_etcd(values: Values) -> tuple[Config, NodeSource]:
    """Choose the underlay first: the etcd source knows this node by that address."""
    for one, other in _PAIRS:
        if bool(values[_key(one)]) != bool(values[_key(other)]):
            raise OptionError(f"{one} and {other} go together; give both, or neither")
    access = EtcdAccess(
        endpoints=values["etcd_endpoints"] or DEFAULT_ENDPOINTS,
        prefix=values["etcd_prefix"],
        authority=_path(values["etcd_cafile"]),
        certificate=_path(values["etcd_certfile"]),
        key=_path(values["etcd_keyfile"]),
        username=values["etcd_username"],
        password=values["etcd_password"],
    )
    origin = f"etcd {access.prefix}"
    answers = Answers(values["state_dir"], origin)
    text = answers.to("network", lambda: network_in_etcd(access))
    network = parse_network(text)
    warn_of_unknown(text, f"etcd's {config_key(access.prefix)}")
    name = values["node_name"] or socket.gethostname()
    config = _config(values, name, network, origin=origin)
    own, devices = NodeCache(config).load().own, Devices()
    try:
        chosen = ChosenUnderlay(devices, config.choice)
        address = chosen.now(known=own.address if own else None, asked=None).announced
    finally:
        devices.close()
    previous, margin = _previous_subnet(config.subnet_file), values["subnet_lease_renew_margin"]
    return config, EtcdSource(access, address, previous=previous, term=Term(margin=60 * margin))


def _key(option: str) -> str:
    """By what an option's value is found."""
    return option.removeprefix("--").replace("-", "_")


def network_in_etcd(access: EtcdAccess) -> str:
    """The network's config in etcd. SourceError: it is missing, or wrong as yet."""
    try:
        text = network_config(access)
        parse_network(text)
    except ConfigError as error:
        raise SourceError(f"etcd's {config_key(access.prefix)} {error}") from None
    return text


def _config(values: Values, name: str, network: Network, *, origin: str) -> Config:
    mode = Mode(values["mode"])
    if mode is Mode.OWN and not network.is_ipv4_alone:
        advice = "keep flanneld and give --mode adopt, or set EnableIPv6 to false"
        raise ConfigError(f"the network has IPv6, and mode own serves IPv4 alone; {advice}")
    host_root = values["host_root"]
    return Config(
        node_name=name,
        state=values["state_dir"],
        mode=mode,
        origin=origin,
        network=network,
        choice=_choice(values),
        subnet_file=values["subnet_file"],
        masquerade=_masquerade(values),
        forward=Forward.ACCEPT if values["iptables_forward_rules"] else Forward.OFF,
        has_blackhole=values["ip_blackhole_route"],
        rules_interval=values["iptables_resync"],
        method=Method(values["attach"]),
        constants=_constants(values),
        revalidate=values["revalidate"],
        ignored=frozenset(map(Kind, values["ignore_mechanism"])),
        untracks=mode is Mode.OWN if values["notrack"] is None else values["notrack"],
        clears_unavailable=values["set_node_network_unavailable"],
        ready_file=values["ready_file"],
        pod_source=PodSource(values["pods"]),
        caches=tuple(values["cni_cache_dir"]) or (below(host_root, CACHE),),
        cni_conf_dir=values["cni_conf_dir"],
        host_root=host_root,
    )


def _choice(values: Values) -> Choice:
    return Choice(
        interfaces=tuple(filter(None, values["iface"])),
        patterns=tuple(values["iface_regex"]),
        can_reach=values["iface_can_reach"],
        public=values["public_ip"],
    )


def _masquerade(values: Values) -> Masquerade:
    if not values["ip_masq"]:
        return Masquerade.OFF
    is_random = not values["ip_masq_fully_random_disable"]
    return Masquerade.FULLY_RANDOM if is_random else Masquerade.ON


def _constants(values: Values) -> Constants:
    return Constants(
        strict=Strictness.DROP if values["strict"] else Strictness.PASS,
        max_peers=values["max_peers"],
        max_pods=values["max_pods"],
        max_flows=values["max_flows"],
    )


def _network(values: Values, default: Path | None = None) -> Network:
    path = _path(values["net_config_path"]) or default
    return read_network(path) if path else Network()


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _previous_subnet(path: Path) -> IPv4Network | None:
    """The subnet that this node had, by its subnet.env."""
    try:
        return IPv4Interface(subnet_env.read(path)["FLANNEL_SUBNET"]).network
    except (KeyError, ValueError):
        return None
