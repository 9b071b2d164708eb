# SPDX-License-Identifier: Apache-2.0
"""Which interface carries the overlay, chosen as flannel chooses it."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address

from vxlane.errors import ConfigError
from vxlane.host.links import Link, Links, explained


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for, in the order in which it is looked for; nothing: the default route's."""

    interfaces: tuple[str, ...] = ()
    """Names or addresses."""
    patterns: tuple[str, ...] = ()
    """Regular expressions on addresses, then on names."""
    can_reach: IPv4Address | None = None
    public: IPv4Address | None = None
    """The address that peers send to, where it is not the interface's own."""


@dataclass(frozen=True, slots=True)
class Underlay:
    """The interface, and the address that this node's packets carry on it."""

    link: Link
    address: IPv4Address


def choose(links: Links, choice: Choice) -> Underlay:
    """The interface that `choice` names; ConfigError where there is none such, or no address."""
    if choice.public and not (choice.interfaces or choice.patterns or choice.can_reach):
        if holder := links.holder(choice.public):
            return Underlay(holder, choice.public)
        raise ConfigError(f"no interface has the address {choice.public}; name one with --iface")
    link, address = _found(links, choice)
    address = address or _first_address(links, link)
    return Underlay(link, choice.public or address)


def _found(links: Links, choice: Choice) -> tuple[Link, IPv4Address | None]:
    for wanted in choice.interfaces:
        if found := _named(links, wanted):
            return found
    for pattern in choice.patterns:
        if found := _matching(links, pattern):
            return found
    if choice.interfaces or choice.patterns:
        asked = ", ".join(choice.interfaces + choice.patterns)
        raise ConfigError(f"no interface is named, addressed or matched by {asked}; see 'ip addr'")
    if choice.can_reach:
        return _towards(links, choice.can_reach)
    return _default(links)


def _named(links: Links, wanted: str) -> tuple[Link, IPv4Address | None] | None:
    try:
        address = IPv4Address(wanted)
    except ValueError:
        link = links.by_name(wanted)
        return (link, None) if link else None
    holder = links.holder(address)
    return (holder, address) if holder else None


def _matching(links: Links, pattern: str) -> tuple[Link, IPv4Address | None] | None:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--iface-regex {pattern!r} is no regular expression: {error}") from None
    for interface, index in links.addresses().items():
        link = links.by_index(index)
        if link and expression.search(str(interface.ip)):
            return link, interface.ip
    for link in links.all().values():
        if expression.search(link.name):
            return link, None
    return None


def _towards(links: Links, address: IPv4Address) -> tuple[Link, IPv4Address | None]:
    """The interface, and our address, that packets to `address` leave by."""
    with explained(f"find the route to {address}", "--iface-can-reach needs a reachable address"):
        route = links.netlink.route("get", dst=str(address))[0]
    link = links.by_index(route.get_attr("RTA_OIF"))
    source = route.get_attr("RTA_PREFSRC")
    if link is None:
        raise ConfigError(f"{address} is not reached through an interface; name one with --iface")
    return link, IPv4Address(source) if source else None


def _default(links: Links) -> tuple[Link, IPv4Address | None]:
    with explained("look for the default route"):
        routes = list(links.netlink.get_default_routes(family=socket.AF_INET))
    for route in sorted(routes, key=lambda route: route.get_attr("RTA_PRIORITY") or 0):
        if link := links.by_index(route.get_attr("RTA_OIF") or 0):
            return link, None
    raise ConfigError("there is no default route to take the interface from; name one with --iface")


def _first_address(links: Links, link: Link) -> IPv4Address:
    for interface in links.addresses(link.index):
        if not interface.ip.is_loopback:
            return interface.ip
    raise ConfigError(f"interface {link.name} has no IPv4 address; name another with --iface")
