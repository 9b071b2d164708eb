# SPDX-License-Identifier: Apache-2.0
"""Pods that come and go on a few addresses, each of which is given away again at once.

Made by the lab's own chain of CNI plugins, or by hand where a test says which ifindex.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from numbered import Listener, Traffic, Watch
from rig import veth_of

from vxlane.lab import namespaces, pods
from vxlane.lab.underlay import ip
from vxlane.runtime.chain import Chain, ContainerInterface

_MTU = 1450


@dataclass(frozen=True, slots=True)
class Tenant:
    """A pod; its name is its secret."""

    name: str
    node: str
    address: str
    listener: Listener
    watch: Watch


class Tenants:
    """Makes pods that answer traffic and watch for what is not their own."""

    def __init__(self, lab: Any, traffic: Traffic, *, addresses: int) -> None:
        self.watches: list[Watch] = []
        self._lab = lab
        self._traffic = traffic
        self._addresses = addresses
        # Whatever goes by names finds later pods before earlier ones.
        self._numbers = itertools.count(9999, -1)
        self._living: list[Tenant] = []

    def pool(self, node: str) -> list[str]:
        """The addresses that a node gives away."""
        network = self._lab.node(node).pod_cidr
        return [str(network[200 + number]) for number in range(self._addresses)]

    def add(self, node: str) -> Tenant:
        """A pod by the plugins."""
        name = self._namespace(node)
        result = self._chain(node).add(_interface(name))
        return self._settle(name, node, result["ips"][0]["address"].partition("/")[0])

    def remove(self, tenant: Tenant) -> None:
        """Take a pod away as a runtime does."""
        self._leave(tenant)
        self._chain(tenant.node).delete(_interface(tenant.name))
        namespaces.remove([tenant.name])

    def remove_all(self) -> None:
        """Take away who is left."""
        for tenant in list(self._living):
            self.remove(tenant)

    def replace_by_hand(self, tenant: Tenant, indexes: dict[str, int]) -> list[Tenant]:
        """Put pods in one's place without a pause; see `add_by_hand`."""
        veth = veth_of(self._lab, tenant.node, tenant.name)
        return self.add_by_hand(tenant.node, indexes, before=f"link del {veth}")

    def add_by_hand(self, node: str, indexes: dict[str, int], *, before: str = "") -> list[Tenant]:
        """Pods with these addresses, of these ifindexes (0: any), made as plugins make them.

        `before` is an `ip` command that is run in the same breath.
        """
        names = {address: self._namespace(node) for address in indexes}
        commands = [before]
        for address, name in names.items():
            host = f"h{next(self._numbers)}"
            index = f"index {indexes[address]}" if indexes[address] else ""
            peer = f"peer name eth0 mtu {_MTU} netns {name}"
            commands.append(f"link add {host} {index} mtu {_MTU} type veth {peer}")
            commands.append(f"link set {host} master cni0 up")
        argv = ["ip", "-n", self._lab.netns(node), "-batch", "-"]
        namespaces.run(None, *argv, stdin="\n".join(commands))
        return [self._connect(name, node, address) for address, name in names.items()]

    def _connect(self, name: str, node: str, address: str) -> Tenant:
        """Make a pod's end as the bridge plugin would."""
        ip(name, f"address add {address}/24 dev eth0")
        ip(name, "link set eth0 up")
        ip(name, f"route add default via {self._lab.node(node).pod_cidr[1]}")
        return self._settle(name, node, address)

    def _namespace(self, node: str) -> str:
        name = f"{self._lab.netns(node)}-pod{next(self._numbers)}"
        namespaces.create(name)
        return name

    def _settle(self, name: str, node: str, address: str) -> Tenant:
        # That ARP may take seconds to follow a moved address is every network's trouble.
        for place in (node, f"{node}-pod1", f"{node}-pod2"):
            self._lab.exec(place, "ip", "neighbour", "flush", "to", address)
        listener = self._traffic.join(Listener(name, name))
        watch = self._traffic.join(Watch(name, address))
        self.watches.append(watch)
        self._living.append(Tenant(name, node, address, listener, watch))
        return self._living[-1]

    def _leave(self, tenant: Tenant) -> None:
        self._traffic.leave(tenant.listener)
        self._traffic.leave(tenant.watch)
        self._living.remove(tenant)

    def _chain(self, node: str) -> Chain:
        """The lab's chain, with few addresses to give away."""
        usual = pods.chain(self._lab.node(node))
        bridge, *more = usual.conflist["plugins"]
        pool = self.pool(node)
        (whole,) = bridge["ipam"]["ranges"][0]
        few = whole | {"rangeStart": pool[0], "rangeEnd": pool[-1]}
        bridge = bridge | {"ipam": bridge["ipam"] | {"ranges": [[few]]}}
        return replace(usual, conflist={**usual.conflist, "plugins": [bridge, *more]})


def _interface(name: str) -> ContainerInterface:
    return ContainerInterface(name, namespaces.path(name))
