# SPDX-License-Identifier: Apache-2.0
"""The kernel path of mode own as a value, without the device.

Pure: from configuration and nodes to a plan that `OwnedOverlay.apply` applies.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from vxlane.config import Config
from vxlane.host.firewall import Masquerade, Policy
from vxlane.host.subnet_env import SubnetEnv
from vxlane.overlay.desired import Path
from vxlane.sources.model import Node
from vxlane.util.dirty import Dirty


@dataclass(frozen=True, slots=True)
class Plan:
    """Paths, rules and files, in the order in which they are applied."""

    network: IPv4Network
    """Of all pods: routes outside it are left alone."""
    paths: tuple[Path, ...]
    policy: Policy | None
    """None: the rules need not be compared now."""
    blackhole: IPv4Network | None
    """None: none is wanted, or it need not be compared now."""
    subnet_env: SubnetEnv
    """Last, because pods are made once it is there."""


def plan_for(
    config: Config,
    own: Node,
    network: IPv4Network,
    *,
    paths: tuple[Path, ...],
    mtu: int,
    dirty: Dirty,
) -> Plan:
    """The plan for node `own`. `mtu` is the pods', in bytes. Rules are left out unless dirty."""
    compares_rules = bool(dirty & Dirty.RULES)
    return Plan(
        network=network,
        paths=paths,
        policy=(
            Policy(network, own.pod_cidr, config.masquerade, config.forward)
            if compares_rules
            else None
        ),
        blackhole=own.pod_cidr if compares_rules and config.has_blackhole else None,
        subnet_env=SubnetEnv(
            network=network,
            subnet=own.pod_cidr,
            mtu=mtu,
            is_masqueraded=config.masquerade is not Masquerade.OFF,
        ),
    )
