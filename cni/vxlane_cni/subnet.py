# SPDX-License-Identifier: Apache-2.0
"""From flannel's subnet.env to the configuration of the plugin that makes the interface.

Builds the same as flannel's own plugin (flannel-io/cni-plugin, flannel.go and flannel_linux.go).
subnet.env fills in what the `delegate` object leaves open.
Imports errors, request and wire.
"""

from __future__ import annotations

from ipaddress import ip_network

from vxlane_cni.errors import INVALID_CONFIG, CniError
from vxlane_cni.request import Request, shown
from vxlane_cni.wire import JsonObject

_DEFAULT_FILE = "/run/flannel/subnet.env"
_NETWORKS = ("FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK")
_SUBNETS = ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET")
_NEEDED = (_NETWORKS, _SUBNETS, ("FLANNEL_MTU",), ("FLANNEL_IPMASQ",))
"""Of each group at least one."""


class Subnet:
    """The node's part of the overlay, as the node's agent wrote it.

    networks     CIDRs of the whole overlay, of either family
    subnets      CIDRs of this node's pods, of either family
    mtu          largest IP packet of a pod, bytes
    masquerades  whether the agent masquerades, so that the bridge must not
    """

    __slots__ = ("masquerades", "mtu", "networks", "subnets")

    def __init__(self, variables: dict[str, str]) -> None:
        """ValueError: a variable is missing, or its value is wrong."""
        for names in _NEEDED:
            if not any(variables.get(name) for name in names):
                raise ValueError(f"{' or '.join(names)} is missing")
        self.networks = _cidrs(variables, _NETWORKS)
        self.subnets = _cidrs(variables, _SUBNETS)
        self.mtu = int(variables["FLANNEL_MTU"])
        self.masquerades = variables["FLANNEL_IPMASQ"] == "true"


def read(request: Request, code: int) -> Subnet:
    """The subnet.env that the request names; CniError `code` while there is none to use."""
    path = request.path("subnetFile", _DEFAULT_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            pairs = [line.rstrip("\n").partition("=") for line in file]
        return Subnet({name: value for name, _, value in pairs})
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise CniError(
            code,
            f"flannel's subnet.env can't be used: {path}: {said}",
            "the node's agent writes it: see the log of vxlane agent, or of flannel's pod",
        ) from None


def delegate(request: Request, subnet: Subnet) -> JsonObject:
    """The delegate's configuration; CniError 7 for one that flannel refuses."""
    conf = dict(request.mapping("delegate"))
    for key in ("name", "ipam"):
        if key in conf:
            raise CniError(INVALID_CONFIG, f"delegate must not have {key}: subnet.env sets it")
    kind = conf.setdefault("type", "bridge")
    if not _is_plugin(kind) or kind == request.conf.get("type"):
        said = f"delegate.type {shown(kind)} is no plugin to delegate to"
        raise CniError(INVALID_CONFIG, said)
    runtime = request.mapping("runtimeConfig")
    if runtime:
        conf["runtimeConfig"] = runtime
    conf["name"] = request.network
    conf["cniVersion"] = request.version
    conf.setdefault("ipMasq", not subnet.masquerades)
    conf.setdefault("mtu", subnet.mtu)
    if kind == "bridge":
        conf.setdefault("isGateway", True)
    conf["ipam"] = _ipam(request, subnet)
    return conf


def _ipam(request: Request, subnet: Subnet) -> JsonObject:
    """The `ipam` object with the node's ranges, and routes to the whole overlay."""
    ipam = request.mapping("ipam")
    routes = ipam.get("routes") or []
    if not isinstance(routes, list):
        raise CniError(INVALID_CONFIG, "ipam.routes must be a list")
    kind = ipam.get("type", "host-local")
    if not _is_plugin(kind):
        raise CniError(INVALID_CONFIG, f"ipam.type {shown(kind)} is no plugin")
    overlay = [{"dst": cidr} for cidr in subnet.networks]
    ranges = [[{"subnet": cidr}] for cidr in subnet.subnets]
    return {**ipam, "type": kind, "ranges": ranges, "routes": routes + overlay}


def _is_plugin(kind: object) -> bool:
    """Whether a type can be the name of a plugin's file."""
    return isinstance(kind, str) and kind.isprintable() and kind != "" and "/" not in kind


def _cidrs(variables: dict[str, str], names: tuple[str, ...]) -> list[str]:
    """The variables' CIDRs without host bits; newer flannels write several with commas."""
    texts = [text for name in names for text in variables.get(name, "").split(",")]
    return [str(ip_network(text.strip(), strict=False)) for text in texts if text.strip()]
