# SPDX-License-Identifier: Apache-2.0
"""A network of nodes in a real etcd, as flannel's daemons leave it."""

import json
from ipaddress import IPv4Address
from typing import Any

from etcdserver import EtcdServer
from following import QUICK

from vxlane.sources.etcd.access import EtcdAccess
from vxlane.sources.etcd.source import EtcdSource
from vxlane.sources.model import Announcement, Backend

OWN, ONE, TWO = "192.168.1.10", "192.168.1.11", "192.168.1.12"
CONFIG = '{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}'


class Network:
    """A prefix of its own in etcd, with flannel's config, and sources that follow it."""

    def __init__(self, etcd: EtcdServer, prefix: str) -> None:
        self.etcd = etcd
        self.prefix = prefix
        self.sources: list[EtcdSource] = []
        self.put("config", CONFIG)

    def follow(self, own: str = OWN, **options: Any) -> EtcdSource:
        """A started source for the node with address `own`."""
        options = {"timing": QUICK, **options}
        access = options.pop("access", EtcdAccess((self.etcd.url,), self.prefix))
        source = EtcdSource(access, IPv4Address(own), **options)
        self.sources.append(source)
        source.start()
        return source

    def put(self, key: str, value: str, *options: str) -> None:
        """Write a key of this network."""
        self.etcd.ctl("put", *options, f"{self.prefix}/{key}", value)

    def subnet(self, number: int, address: str, **attributes: Any) -> None:
        """The key of a node as flannel writes it."""
        data = {"VNI": 1, "VtepMAC": f"0e:00:00:00:00:{number:02x}"}
        value = {"PublicIP": address, "PublicIPv6": None, "BackendType": "vxlan"}
        text = json.dumps({**value, "BackendData": data, **attributes})
        self.put(f"subnets/10.42.{number}.0-24", text)

    def delete(self, key: str) -> None:
        """Delete a key of this network."""
        self.etcd.ctl("del", f"{self.prefix}/{key}")

    def keys(self) -> dict[str, str]:
        """The last part of each subnet's key, and its value."""
        lines = self.etcd.ctl("get", "--prefix", f"{self.prefix}/subnets/").splitlines()
        names = [line.rpartition("/")[2] for line in lines[::2]]
        return dict(zip(names, lines[1::2], strict=True))

    def lease(self, key: str) -> int:
        """The lease of a subnet's key."""
        return self._field(key, "lease")

    def written(self, key: str) -> int:
        """The revision in which a subnet's key was written last."""
        return self._field(key, "mod_revision")

    def _field(self, key: str, name: str) -> int:
        found = self.etcd.ctl("get", f"{self.prefix}/subnets/{key}", "-w", "json")
        number: int = json.loads(found)["kvs"][0].get(name, 0)
        return number


def announcement(address: str = OWN, mac: str = "12:c6:65:89:b4:e3") -> Announcement:
    """What a node says."""
    return Announcement(IPv4Address(address), Backend.VXLAN, 1, mac)
