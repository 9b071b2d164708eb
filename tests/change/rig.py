# SPDX-License-Identifier: Apache-2.0
"""What the tests of change share: how agents run here, what they count, how they end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from numbered import Listener, Talk, Traffic

from vxlane.lab import namespaces
from vxlane.lab.agents import program
from vxlane.lab.underlay import ip
from vxlane.lab.waiting import wait_for

AGENT = ("--revalidate", "600")
"""No approval ages during a test, so that counts can be exact."""

ROUNDS = 50
"""Of datagrams and their answers; more than there is ever of noise meanwhile."""

Key = tuple[str, str]
_FLOODED = ("to_pod", "no_pod")
_UNSTAMPED = ("to_pod", "no_stamp")


def counted(seen: Mapping[Key, int]) -> dict[Key, int]:
    """Everything that moved but ARP and IPv6, and others' packets that a bridge floods.

    To to_pod ARP and IPv6 are like all else that no entrance noted: of that whole `ROUNDS` count.
    """
    whole = {**seen, _UNSTAMPED: seen.get(_UNSTAMPED, 0) // ROUNDS * ROUNDS}
    return {
        key: count
        for key, count in whole.items()
        if count and key[1] != "not_ip" and key != _FLOODED
    }


def end_agent(lab: Any, node: str, number: signal.Signals) -> None:
    """End a node's agent by a signal, and return when it is gone."""
    os.kill(lab.agent_pid(node), number)
    wait_for(lambda: lab.agent_pid(node) is None, f"end of {node}'s agent")


def attach(lab: Any, node: str, netns: str) -> dict[str, Any]:
    """Have a node's agent attach the pod in `netns`, as the CNI plugin would; its answer."""
    (inner,) = json.loads(ip(netns, "-j address show eth0"))
    addresses = [each["local"] for each in inner["addr_info"] if each["family"] == "inet"]
    return lab.ask(
        node,
        op="add",
        container_id=netns,
        ifname="eth0",
        netns=str(namespaces.path(netns)),
        host_ifname=veth_of(lab, node, netns),
        mac=inner["address"],
        addresses=addresses,
    )


def veth_of(lab: Any, node: str, netns: str) -> str:
    """The host end of the veth of the pod in `netns`."""
    index = json.loads(ip(netns, "-j link show eth0"))[0]["link_index"]
    links = json.loads(ip(lab.netns(node), "-j link show type veth"))
    return next(link["ifname"] for link in links if link["ifindex"] == index)


def ifindex(netns: str, device: str) -> int:
    """The ifindex of a device."""
    return int(json.loads(ip(netns, f"-j link show {device}"))[0]["ifindex"])


def detach(lab: Any, node: str) -> None:
    """Run `vxlane detach` on a node."""
    lab.exec(node, program("vxlane"), "detach", "--state-dir", str(lab.node(node).directory))


def listen(traffic: Traffic, lab: Any, *pods: str) -> None:
    """Have pods answer, each with its own name for a secret."""
    for pod in pods:
        traffic.join(Listener(lab.netns(pod), pod))


def talk(traffic: Traffic, lab: Any, client: str, server: str, **where: int) -> Talk:
    """Have a pod talk to another."""
    return traffic.join(Talk(lab.netns(client), lab.address(server), **where))
