# SPDX-License-Identifier: Apache-2.0
"""Pods of a lab: a namespace each, with an interface by flannel's chain of plugins.

Owns the network's conflist. The bridge plugin gets the configuration that the flannel plugin
delegates to it on a real node. vxlane's own plugin is chained after it, except on kernel-only
nodes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vxlane.errors import LabError
from vxlane.lab import namespaces
from vxlane.lab.plan import POD_NETWORK, LabNode, LabPod
from vxlane.runtime.chain import Chain, ContainerInterface

NETWORK = "cbr0"
BRIDGE = "cni0"
PLUGINS = Path("/usr/lib/cni")
"""Where Debian and Ubuntu put containernetworking-plugins."""


def chain(node: LabNode) -> Chain:
    """The plugins of `node`'s pods, ready to run."""
    plugins = [_bridge(node)]
    if not node.kernel_only:
        plugins.append({"type": "vxlane", "stateDir": str(node.directory)})
    return Chain(
        conflist={"cniVersion": "0.3.1", "name": NETWORK, "plugins": plugins},
        namespace=node.name,
        path=(_own_plugin(node.directory), PLUGINS),
        cache=node.directory / "cni",
    )


def cni_directories(node: LabNode) -> tuple[Path, Path, Path]:
    """Where a runtime of `node` would have its networks, its plugins, and libcni's cache."""
    cache = node.directory / "cni"
    return cache / "net.d", cache / "plugins", cache


def write_cni_files(node: LabNode) -> None:
    """Put there what made the node's pods, for commands that make pods or change the network."""
    networks, plugins, _ = cni_directories(node)
    made = chain(node)
    for directory in (networks, plugins):
        directory.mkdir(parents=True)
    (networks / "10-flannel.conflist").write_text(json.dumps(made.conflist), encoding="utf-8")
    for path in (path for path in made.path if path.is_dir()):
        for plugin in path.iterdir():
            link = plugins / plugin.name
            if not link.is_symlink():
                link.symlink_to(plugin)


def _bridge(node: LabNode) -> dict[str, Any]:
    """The flannel plugin's configuration of the bridge plugin, with this node's directories."""
    return {
        "type": "bridge",
        "bridge": BRIDGE,
        "hairpinMode": True,
        "ipMasq": False,
        "isDefaultGateway": True,
        "isGateway": True,
        "mtu": _overlay_mtu(node),
        "ipam": {
            "type": "host-local",
            "dataDir": str(node.directory / "cni" / "networks"),
            "ranges": [[{"subnet": str(node.pod_cidr)}]],
            "routes": [{"dst": str(POD_NETWORK)}],
        },
    }


def _overlay_mtu(node: LabNode) -> int:
    """FLANNEL_MTU of the node's subnet.env, from which the flannel plugin takes it too."""
    file = node.directory / "subnet.env"
    for line in file.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition("=")
        if key == "FLANNEL_MTU":
            return int(value)
    raise LabError(f"{file} has no FLANNEL_MTU")


def _own_plugin(directory: Path) -> Path:
    """A directory in which this program's own CNI plugin is called `vxlane`."""
    binaries = directory / "cni" / "bin"
    binaries.mkdir(parents=True, exist_ok=True)
    link = binaries / "vxlane"
    if not link.is_symlink():
        link.symlink_to(Path(sys.executable).with_name("vxlane-cni"))
    return binaries


def add_pod(node: LabNode, name: str) -> LabPod:
    """Make the namespace `name`, and let the plugins add its interface on `node`."""
    namespaces.create(name)
    result = chain(node).add(_interface(name))
    by_name = {entry["name"]: entry for entry in result["interfaces"]}
    host = next(
        entry for entry in by_name.values() if not entry.get("sandbox") and entry["name"] != BRIDGE
    )
    address, _, _ = result["ips"][0]["address"].partition("/")
    return LabPod.from_json(
        {
            "name": name,
            "node": node.name,
            "address": address,
            "veth": host["name"],
            "mac": by_name["eth0"]["mac"],
        }
    )


def remove_pod(node: LabNode, name: str) -> None:
    """Let the plugins remove the interface, then kill what runs in `name` and delete it."""
    chain(node).delete(_interface(name))
    namespaces.remove([name])


def _interface(name: str) -> ContainerInterface:
    return ContainerInterface(
        container_id=name,
        netns=namespaces.path(name),
        args=f"IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME={name}",
    )
