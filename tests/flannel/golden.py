# SPDX-License-Identifier: Apache-2.0
"""What a node under flannel 0.28 shows, and what a node shows.

The values were read off nodes that ran an unmodified flanneld; the order of the masquerade rules is
that of 0.28.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import standing
from cluster import Cluster

NET = "10.42.0.0/16"
_DATA = (
    "id",
    "local",
    "link",
    "port",
    "learning",
    "ageing",
    "udp_csum",
    "udp_zero_csum6_tx",
    "udp_zero_csum6_rx",
)


def rules(pods: str) -> list[str]:
    """The rules of flanneld, as iptables-save lists them."""
    forward, masq = (
        '-m comment --comment "flanneld forward"',
        '-m comment --comment "flanneld masq"',
    )
    chain = "-A FLANNEL-POSTRTG"
    return [
        f"-A FORWARD {forward} -j FLANNEL-FWD",
        f"-A FLANNEL-FWD -s {NET} {forward} -j ACCEPT",
        f"-A FLANNEL-FWD -d {NET} {forward} -j ACCEPT",
        f"-A POSTROUTING {masq} -j FLANNEL-POSTRTG",
        f"{chain} -m mark --mark 0x4000/0x4000 {masq} -j RETURN",
        f"{chain} -s {pods} -d {NET} {masq} -j RETURN",
        f"{chain} -s {NET} -d {pods} {masq} -j RETURN",
        f"{chain} ! -s {NET} -d {pods} {masq} -j RETURN",
        f"{chain} -s {NET} ! -d 224.0.0.0/4 {masq} -j MASQUERADE --random-fully",
        f"{chain} ! -s {NET} -d {NET} {masq} -j MASQUERADE --random-fully",
    ]


def golden(cluster: Cluster, name: str, *, peers: Iterable[str] = ()) -> dict[str, Any]:
    """What flanneld with the backend vxlan makes of a node; `peers`: names, none: all others."""
    node = cluster.node(name)
    pods, macs = node.pod_cidr, cluster.published_macs()
    others = [
        cluster.node(other)
        for other in (peers or cluster.names)
        if other != name and cluster.node(other).pod_cidr in macs
    ]
    return {
        "device": {
            "mtu": 1450,
            "qdisc": "noqueue",
            "address": macs[pods],
            "is_up": True,
            "id": 1,
            "local": str(node.address),
            "link": "eth0",
            "port": 8472,
            "learning": False,
            "ageing": 300,
            "udp_csum": True,
            "udp_zero_csum6_tx": False,
            "udp_zero_csum6_rx": False,
        },
        "addresses": [f"{pods.network_address}/32"],
        "routes": sorted(
            f"{it.pod_cidr} via {it.pod_cidr.network_address} dev flannel.1 onlink" for it in others
        ),
        "neighbours": sorted(
            f"{it.pod_cidr.network_address} lladdr {macs[it.pod_cidr]} PERMANENT" for it in others
        ),
        "fdb": sorted(f"{macs[it.pod_cidr]} dst {it.address} self permanent" for it in others),
        "rules": rules(str(pods)),
        "subnet.env": (
            f"FLANNEL_NETWORK={NET}\nFLANNEL_SUBNET={pods[1]}/{pods.prefixlen}\n"
            "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        ),
    }


def shown(cluster: Cluster, name: str, device: str = "flannel.1") -> dict[str, Any]:
    """What a node has of all that flanneld makes."""
    found = cluster.sh(name, f"ip -d -j link show {device} 2>/dev/null || true")
    link = json.loads(found)[0] if found.strip() else None
    file = cluster.node(name).directory / "subnet.env"
    data = link["linkinfo"]["info_data"] if link else {}
    return {
        "device": link
        and {
            "mtu": link["mtu"],
            "qdisc": link["qdisc"],
            "address": link["address"],
            "is_up": "UP" in link["flags"],
            **{key: data.get(key) for key in _DATA},
        },
        "addresses": cluster.sh(name, f"ip -br -4 address show {device}").split()[2:]
        if link
        else [],
        # The connected routes are the kernel's and the bridge plugin's.
        "routes": [
            line for line in _lines(cluster, name, "ip route") if "proto kernel" not in line
        ],
        "neighbours": _lines(cluster, name, f"ip neigh show dev {device}") if link else [],
        "fdb": _lines(cluster, name, f"bridge fdb show dev {device}") if link else [],
        "rules": [
            line for line in cluster.sh(name, "iptables-save").splitlines() if line.startswith("-A")
        ],
        "subnet.env": file.read_text() if file.exists() else None,
    }


def traces(cluster: Cluster, name: str) -> dict[str, Any]:
    """What vxlane could leave on a node besides."""
    tuned = "nf_conntrack_tcp_be_liberal nf_conntrack_tcp_ignore_invalid_rst"
    return {
        "programs": standing.programs(cluster.netns(name)),
        "sysctls": [
            cluster.sh(name, f"sysctl -n net.netfilter.{word}").strip() for word in tuned.split()
        ],
        "clsact": [line for line in cluster.sh(name, "tc qdisc").splitlines() if "clsact" in line],
    }


def _lines(cluster: Cluster, name: str, command: str) -> list[str]:
    return sorted(line.strip() for line in cluster.sh(name, command).splitlines())
