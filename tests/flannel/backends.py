# SPDX-License-Identifier: Apache-2.0
"""The backends vxlan and host-gw: pkg/backend/vxlan and pkg/backend/{hostgw,route_network.go}
of v0.28, by plain commands. What flannel gets wrong is as wrong here.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Protocol

from leases import Event, Lease, Manager, NetworkConfig

OVERHEAD = 50
_RETRIES = 10
_DELLINK = 17
_GROUP_LINK = 1


@dataclass(frozen=True)
class Interface:
    """The external interface."""

    name: str
    address: IPv4Address
    mtu: int


@dataclass(frozen=True)
class Setting:
    """What a backend is registered with."""

    manager: Manager
    config: NetworkConfig
    external: Interface
    public: str
    """--public-ip."""
    previous: IPv4Network | None
    """The subnet that subnet.env says this node had."""


class Network(Protocol):
    """A backend after RegisterNetwork."""

    lease: Lease
    mtu: int

    def run(self) -> None:
        """Begin what the backend does unasked."""

    def handle(self, event: Event) -> None:
        """Act on a lease that came, changed or went."""


class Vxlan:
    """The vxlan backend."""

    def __init__(self, setting: Setting) -> None:
        config, external = setting.config, setting.external
        self._manager = setting.manager
        self._external = external
        self._name = f"flannel.{config.backend.get('vni', 1)}"
        self.mtu = int(config.backend.get("mtu") or external.mtu) - OVERHEAD
        self._routes_directly = bool(config.backend.get("directrouting"))
        mac = self._ensure_link(config)
        data = {"VNI": config.backend.get("vni", 1), "VtepMAC": mac}
        attrs = {"PublicIP": setting.public, "PublicIPv6": None, "BackendType": "vxlan"}
        self.lease = self._manager.acquire({**attrs, "BackendData": data}, setting.previous)
        self._configure(config)

    def run(self) -> None:
        """Watch for the end of the device that was there at the start, by its name."""
        events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        events.bind((0, _GROUP_LINK))
        threading.Thread(target=self._watch, args=(events,), daemon=True).start()

    def handle(self, event: Event) -> None:
        """See `Network` (handleSubnetEvents)."""
        kind, lease = event
        if lease.attrs.get("BackendType") != "vxlan":
            say(f"ignoring non-vxlan v4Subnet({lease.subnet})")
            return
        gateway = str(lease.subnet.network_address)
        neighbour = f"{gateway} lladdr {lease.mac} dev {self._name}"
        entry = f"{lease.mac} dev {self._name} dst {lease.public_ip} self permanent"
        tunnel = f"{lease.subnet} via {gateway} dev {self._name} onlink"
        # Asked anew at each event, of the routes as they are then.
        if self._routes_directly and is_on_link(lease.public_ip):
            verb = "replace" if kind == "added" else "del"
            retry(f"ip route {verb} {lease.subnet} via {lease.public_ip}")
        elif kind == "added":
            # The route last: without the neighbour's entry the kernel would ask for it.
            done = [f"ip neigh del {neighbour}", f"bridge fdb del {entry}"]
            steps = f"ip neigh replace {neighbour} nud permanent", f"bridge fdb replace {entry}"
            for number, step in enumerate((*steps, f"ip route replace {tunnel}")):
                if not retry(step):
                    for undo in done[:number]:
                        run(undo)
                    return
        else:
            retry(f"ip neigh del {neighbour}")
            retry(f"bridge fdb del {entry}")
            retry(f"ip route del {tunnel}")

    def _ensure_link(self, config: NetworkConfig) -> str:
        """Make the device, or keep one that fits; its MAC (newVXLANDevice, ensureLink)."""
        vni, port = config.backend.get("vni", 1), config.backend.get("port", 0)
        learning = "learning" if config.backend.get("learning") else "nolearning"
        mac = self._manager.stored_mac() or random_mac()
        add = (
            f"ip link add {self._name} address {mac} mtu {self.mtu} type vxlan id {vni} "
            f"local {self._external.address} dev {self._external.name} dstport {port} {learning}"
        )
        if found := link(self._name):
            if reason := self._incompatible(found, vni, port):
                say(f"{self._name!r} already exists with incompatible configuration: {reason}")
                run(f"ip link del {self._name}")
                run(add)
        else:
            run(add)
        Path(f"/proc/sys/net/ipv6/conf/{self._name}/accept_ra").write_text("0")
        return str(link(self._name)["address"])

    def _incompatible(self, found: dict[str, Any], vni: int, port: int) -> str:
        """Why a device does not fit; MTU, MAC and learning don't count (vxlanLinksIncompat)."""
        info = found["linkinfo"]
        if info["info_kind"] != "vxlan":
            return "link type"
        data = info["info_data"]
        wanted = {"id": vni, "link": self._external.name, "local": str(self._external.address)}
        if port:
            wanted["port"] = port
        return ", ".join(key for key, value in wanted.items() if data.get(key) != value)

    def _configure(self, config: NetworkConfig) -> None:
        """Its one address of the network, and up (EnsureV4AddressOnLink)."""
        own = f"{self.lease.subnet.network_address}/32"
        shown = json.loads(run(f"ip -4 -j address show dev {self._name}") or "[]")
        present = [
            f"{entry['local']}/{entry['prefixlen']}"
            for device in shown
            for entry in device.get("addr_info", ())
        ]
        for address in present:
            if address != own and IPv4Address(address.partition("/")[0]) in config.network:
                run(f"ip address del {address} dev {self._name}")
        if own not in present:
            run(f"ip address add {own} dev {self._name}")
        run(f"ip link set {self._name} up")

    def _watch(self, events: socket.socket) -> None:
        """Wait for the end of a device of our name (watchVXLANDevice)."""
        while True:
            message = events.recv(1 << 16)
            if struct.unpack_from("=IH", message)[1] == _DELLINK and self._name in names(message):
                say(f"Interface {self._name} deleted")
                threading.Thread(target=self._recreate, daemon=True).start()

    def _recreate(self) -> None:
        """The device with its address again; no neighbours, FDB entries, routes (reCreateVxlan).

        With etcd no MAC is stored, so that the device gets a new one, of which nobody is told.
        """
        backoff = 1.0
        while True:
            with contextlib.suppress(Exception):
                config = self._manager.config()
                self._ensure_link(config)
                self._configure(config)
                say(f"VXLAN device {self._name} recreated successfully")
                return
            time.sleep(backoff)
            backoff = min(2 * backoff, 30.0)


class HostGw:
    """The host-gw backend: RouteNetwork."""

    def __init__(self, setting: Setting) -> None:
        self._external = setting.external
        if setting.public != str(self._external.address):
            raise SystemExit("your PublicIP differs from interface IP")
        self.mtu = self._external.mtu
        self._routes: dict[IPv4Network, str] = {}
        self._lock = threading.Lock()
        attrs = {"PublicIP": setting.public, "PublicIPv6": None, "BackendType": "host-gw"}
        self.lease = setting.manager.acquire(attrs, setting.previous)

    def run(self) -> None:
        """Check the routes every ten seconds."""
        threading.Thread(target=self._check, daemon=True).start()

    def handle(self, event: Event) -> None:
        """See `Network` (handleSubnetEvents of RouteNetwork)."""
        kind, lease = event
        if lease.attrs.get("BackendType") != "host-gw":
            say(f"Ignoring non-host-gw subnet: {lease.subnet}")
            return
        with self._lock:
            if kind == "removed":
                self._routes.pop(lease.subnet, None)
                run(f"ip route del {self._route(lease.subnet, lease.public_ip)}")
                return
            self._routes[lease.subnet] = lease.public_ip
            there = json.loads(run(f"ip -j route show exact {lease.subnet}") or "[]")
            if there and not self._is(there[0], lease.public_ip):
                run(f"ip route del {lease.subnet}")
                there = []
            if not there:
                run(f"ip route add {self._route(lease.subnet, lease.public_ip)}")

    def _check(self) -> None:
        """Add what is missing, remove nothing (checkSubnetExistInRoutes)."""
        while True:
            time.sleep(10)
            with self._lock:
                for subnet, gateway in self._routes.items():
                    there = json.loads(run(f"ip -j route show exact {subnet}") or "[]")
                    if not any(self._is(route, gateway) for route in there):
                        run(f"ip route add {self._route(subnet, gateway)}")

    def _is(self, route: dict[str, Any], gateway: str) -> bool:
        return route.get("gateway") == gateway and route.get("dev") == self._external.name

    def _route(self, subnet: IPv4Network, gateway: str) -> str:
        return f"{subnet} via {gateway} dev {self._external.name}"


BACKENDS: dict[str, Callable[[Setting], Network]] = {"vxlan": Vxlan, "host-gw": HostGw}


def external_interface(name: str) -> Interface:
    """The interface `name` with its first address."""
    (shown,) = json.loads(run(f"ip -4 -j address show dev {name}"))
    return Interface(name, IPv4Address(shown["addr_info"][0]["local"]), int(shown["mtu"]))


def is_on_link(address: str) -> bool:
    """ip.DirectRouting: one route, and no gateway."""
    routes = json.loads(run(f"ip -j route get {address}") or "[]")
    return len(routes) == 1 and "gateway" not in routes[0]


def link(name: str) -> dict[str, Any]:
    """A device as `ip -d -j` shows it; nothing where there is none."""
    shown = run(f"ip -d -j link show {name}")
    return json.loads(shown)[0] if shown else {}


def random_mac() -> str:
    """mac.NewHardwareAddr: random, locally administered, unicast."""
    octets = bytearray(random.randbytes(6))
    octets[0] = octets[0] & 0xFE | 0x02
    return octets.hex(":")


def names(message: bytes) -> set[str]:
    """Words in a netlink message, the device's name among them."""
    return {word.decode(errors="replace") for word in message.split(b"\0")}


def retry(command: str) -> bool:
    """retry.Do: ten attempts, each delay twice the one before; whether one succeeded."""
    delay = 0.1
    for _ in range(_RETRIES):
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return True
        time.sleep(delay)
        delay *= 2
    say(f"{command}: {done.stderr.strip()}")
    return False


def run(command: str) -> str:
    """What a command printed; what it complains of is logged."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"{command}: {done.stderr.strip()}")
    return done.stdout


def say(line: str) -> None:
    """Log."""
    print(line, file=sys.stderr, flush=True)
