# SPDX-License-Identifier: Apache-2.0
"""What the CNI plugin asks for, and what the kernel must show for it to be so."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest
from agentnode import POD_MAC, AgentNode, attachment, eventually, make_pod

from vxlane.datapath.abi import Guard, Program
from vxlane.datapath.programs import pin_directory
from vxlane.datapath.records import Pod
from vxlane.errors import VxlaneError

HOOKS = {Program.FROM_POD, Program.TO_POD}


ASK = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    try:
        connection.sendall(b'{"op": "status"}' + bytes([10]))
        answer = connection.recv(100)
    except (BrokenPipeError, ConnectionResetError):
        answer = b""
print("answered", answer) if answer else print("hung up")
"""


def check(attach: dict[str, Any]) -> dict[str, Any]:
    """The request that the CNI plugin makes for the CHECK of the same pod."""
    return attach | {"op": "check"}


def pods(node: AgentNode) -> dict[str, Pod]:
    """What the programs know, by address."""
    with node.maps() as maps:
        return {str(address): pod for address, pod in maps.pods().items()}


def hooks(node: AgentNode, name: str) -> set[Program]:
    """The programs on a device."""
    return {program for program, device in node.attached() if device == name}


@pytest.fixture
def pod(running: AgentNode) -> Iterator[dict[str, Any]]:
    """The request for a pod whose veth is a port of cni0."""
    yield make_pod(running, 7)
    running.sh("ip link del veth7; ip link del cni0", check=False)
    running.ask(op="gc", valid=[])


def test_attach_tells_the_programs(running: AgentNode, pod: dict[str, Any]) -> None:
    """After attach the map has the pod with the bridge's MAC, and both programs are on its veth."""
    assert running.ask(**pod) == {"ok": True, "accelerated": True}
    known = pods(running)["10.42.1.7"]
    assert (known.mac, known.gateway_mac, known.mtu) == (
        POD_MAC,
        running.link("cni0")["address"],
        1500,
    )
    assert known.guard == Guard(0)
    assert hooks(running, "veth7") == HOOKS
    assert running.ask(**pod) == {"ok": True, "accelerated": True}
    assert running.ask(**check(pod)) == {"ok": True, "accelerated": True}
    assert running.status()["pods"] == 1


def test_detach_is_idempotent(running: AgentNode, pod: dict[str, Any]) -> None:
    """Detach takes hooks and entry away, and may be called again, or for nobody."""
    running.ask(**pod)
    for _ in range(2):
        assert running.ask(op="remove", container_id="c7", ifname="eth0") == {"ok": True}
        assert pods(running) == {}
        assert hooks(running, "veth7") == set()


@pytest.mark.parametrize("damage", ["entry", "hooks", "both", "memory"])
def test_check_puts_right(running: AgentNode, pod: dict[str, Any], damage: str) -> None:
    """CHECK answers that a pod is accelerated only with its entry and its hooks there again."""
    running.ask(**pod)
    known = pods(running)
    if damage == "memory":
        running.ask(op="remove", container_id="c7", ifname="eth0")
    if damage in ("entry", "both"):
        with running.maps() as maps:
            maps.delete_pod(IPv4Address("10.42.1.7"))
    if damage in ("hooks", "both"):
        index = running.link("veth7")["ifindex"]
        for pin in list(pin_directory(running.state).glob(f"link-*-{index}")):
            pin.unlink()
        eventually(lambda: hooks(running, "veth7") == set(), "their end")  # RCU's grace period
    assert running.ask(**check(pod)) == {"ok": True, "accelerated": True}
    assert pods(running) == known
    assert hooks(running, "veth7") == HOOKS


def test_check_of_a_pod_whose_veth_is_another(running: AgentNode, pod: dict[str, Any]) -> None:
    """CHECK of a pod that the runtime has made anew, by another veth, takes that one."""
    running.ask(**pod)
    other = make_pod(running, 8) | {"addresses": pod["addresses"], "container_id": "c7"}
    assert running.ask(**check(other)) == {"ok": True, "accelerated": True}
    assert pods(running)["10.42.1.7"].ifindex == running.link("veth8")["ifindex"]
    running.sh("ip link del veth8")
    eventually(lambda: pods(running) == {}, "its end")


def test_a_veth_s_mac_may_change(node: AgentNode, make_netns: Callable[[str], str]) -> None:
    """A pod stays accelerated though its veth gets another MAC, as udev gives it; restarts too."""
    node.start()
    inside = make_netns("pod")
    node.sh(
        "ip link add cni0 address 02:00:00:00:00:01 type bridge; ip link set cni0 up",
        f"ip link add veth7 type veth peer eth0 address {POD_MAC} netns {inside}",
        f"ip link set veth7 master cni0 up; ip -n {inside} link set eth0 up",
    )
    pod = attachment(7)
    assert node.ask(**pod)["accelerated"]
    known = pods(node)
    assert known
    node.sh("ip link set veth7 address 02:00:00:00:99:99")
    time.sleep(0.5)  # a look would take a hundredth of it
    assert (pods(node), hooks(node, "veth7")) == (known, HOOKS)
    for mac in ("02:00:00:00:99:99", "02:00:00:00:99:98"):
        node.stop(signal.SIGKILL)
        node.sh(f"ip link set veth7 address {mac}")
        node.start()
        assert (pods(node), hooks(node, "veth7")) == (known, HOOKS)
        assert node.ask(**check(pod)) == {"ok": True, "accelerated": True}


def test_check_takes_what_the_pod_has_now(running: AgentNode, pod: dict[str, Any]) -> None:
    """CHECK with another MAC or address than the attach had makes the entry so."""
    running.ask(**pod)
    now = pod | {"mac": "02:00:00:00:07:07", "addresses": ["10.42.1.17"]}
    assert running.ask(**check(now)) == {"ok": True, "accelerated": True}
    assert {address: entry.mac for address, entry in pods(running).items()} == {
        "10.42.1.17": "02:00:00:00:07:07"
    }


@pytest.mark.parametrize(
    ("change", "script", "reason"),
    [
        ({"host_ifname": "nope"}, "", "there is no device nope"),
        ({"host_ifname": "cni0"}, "", "cni0 is not a veth but a bridge device"),
        ({}, "ip link set veth7 nomaster", "veth7 is not a port of a bridge"),
        ({"addresses": ["fd00::1"]}, "", "the pod has no IPv4 address"),
    ],
    ids=["missing", "kind", "no-bridge", "ipv6"],
)
def test_what_does_not_fit_is_not_accelerated(
    running: AgentNode, pod: dict[str, Any], change: dict[str, Any], script: str, reason: str
) -> None:
    """A pod that is not as described is left to the kernel path, and the answer says why."""
    running.sh(script)
    answer = running.ask(**pod | change)
    assert (answer["ok"], answer["accelerated"]) == (True, False)
    assert reason in answer["reason"]
    assert pods(running) == {}


def test_a_port_that_joins_its_bridge_later_is_accelerated(
    running: AgentNode, pod: dict[str, Any]
) -> None:
    """An attachment that did not fit is looked at again when its veth changes, and back."""
    running.sh("ip link set veth7 nomaster")
    assert not running.ask(**pod)["accelerated"]
    running.sh("ip link set veth7 master cni0")
    eventually(lambda: "10.42.1.7" in pods(running), "acceleration")
    running.sh("ip link set veth7 nomaster")
    eventually(lambda: pods(running) == {}, "its end")
    assert hooks(running, "veth7") == set()


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "fly"},
        {"op": "add"},
        {"op": "add", "container_id": "../x", "ifname": "eth0"},
        {"op": "remove", "container_id": "c", "ifname": "a/b"},
        {"op": "gc"},
        {"op": "gc", "valid": [3]},
        {"op": "gc", "valid": [["c7"]]},
        {"op": "check", "container_id": "c7", "ifname": "eth0"},
        {"op": "bypass", "enabled": "yes"},
    ],
    ids=["op", "empty", "path", "ifname", "gc", "gc-item", "gc-pair", "check", "bypass"],
)
def test_a_wrong_request_is_refused(running: AgentNode, request_: dict[str, Any]) -> None:
    """A request that makes no sense is answered with what is wrong, and the agent lives on."""
    with pytest.raises(VxlaneError, match="refused"):
        running.ask(**request_)
    assert running.status()["ready"]


def test_a_veth_that_goes_takes_its_pod_along(running: AgentNode, pod: dict[str, Any]) -> None:
    """When a veth is deleted its pod is forgotten at once, for its ifindex is used again."""
    running.ask(**pod)
    running.sh("ip link del veth7")
    # The kernel tells of it before ip ends, and the agent reads that before the request.
    running.status()
    assert pods(running) == {}
    assert not (running.state / "pods" / "c7,eth0.json").exists()


def test_an_address_goes_to_the_newest_pod(running: AgentNode, pod: dict[str, Any]) -> None:
    """An address given to another pod before the old one's DEL is the new one's, and stays it."""
    running.ask(**pod)
    other = make_pod(running, 8) | {"addresses": pod["addresses"]}
    assert running.ask(**other)["accelerated"]
    newer = pods(running)["10.42.1.7"]
    running.ask(op="remove", container_id="c7", ifname="eth0")
    assert pods(running) == {"10.42.1.7": newer}
    assert newer.ifindex == running.link("veth8")["ifindex"]
    running.sh("ip link del veth8")
    eventually(lambda: pods(running) == {}, "its end")


def test_gc_keeps_only_the_valid(running: AgentNode, pod: dict[str, Any]) -> None:
    """GC forgets every attachment that the runtime does not name."""
    running.ask(**pod)
    assert running.ask(op="gc", valid=[["c7", "eth0"]])["removed"] == 0
    assert running.ask(op="gc", valid=[["other", "eth0"]])["removed"] == 1
    assert pods(running) == {}


ANY = "protocol all u32 match u32 0 0 flowid 1:1"
SPOOF = "add rule bridge nat c iifname veth7 ether saddr != 02:00:00:00:00:07 drop"
BASE = "{ type filter hook prerouting priority -300; }"
GUARDED = {
    "shaper": (
        "tc qdisc add dev veth7 root tbf rate 1mbit burst 10k latency 25ms",
        "tc qdisc del dev veth7 root",
        Guard.TO_POD,
    ),
    "ingress-filter": (
        f"tc qdisc add dev veth7 ingress; tc filter add dev veth7 parent ffff: {ANY}",
        "tc qdisc del dev veth7 ingress",
        Guard.FROM_POD,
    ),
    "isolated": (
        "bridge link set dev veth7 isolated on",
        "bridge link set dev veth7 isolated off",
        Guard.FROM_POD | Guard.TO_POD,
    ),
    "locked": (
        "bridge link set dev veth7 locked on",
        "bridge link set dev veth7 locked off",
        Guard.FROM_POD | Guard.TO_POD,
    ),
    "unlearned": (
        "bridge link set dev veth7 learning off",
        "bridge link set dev veth7 learning on",
        Guard.FROM_POD | Guard.TO_POD,
    ),
    "macspoofchk": (
        f"nft 'add table bridge nat; add chain bridge nat c {BASE}; {SPOOF}'",
        "nft delete table bridge nat",
        Guard.JUDGED,
    ),
}


@pytest.mark.parametrize(("guard", "unguard", "expected"), GUARDED.values(), ids=GUARDED.keys())
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_guards_a_veth_is_seen(
    running: AgentNode, pod: dict[str, Any], when: str, guard: str, unguard: str, expected: Guard
) -> None:
    """A shaper, a filter or isolation guards its direction, a spoof check judges the pod."""
    if when == "before":
        running.sh(guard)
    assert running.ask(**pod)["accelerated"]
    if when == "after":
        assert pods(running)["10.42.1.7"].guard == Guard(0)
        running.sh(guard)
    eventually(lambda: pods(running)["10.42.1.7"].guard == expected, "the guard")
    running.sh(unguard)
    eventually(lambda: pods(running)["10.42.1.7"].guard == Guard(0), "no guard")
    eventually(lambda: hooks(running, "veth7") == HOOKS, "hooks")


def test_a_shaper_does_not_wait_for_the_pace(running: AgentNode, pod: dict[str, Any]) -> None:
    """A shaper guards its pod before the agent's next answer, however much changed before it."""
    running.ask(**pod)
    guard, _, expected = GUARDED["shaper"]
    # More than the pace lets through in a second.
    running.sh(*(f"ip link set veth7 alias a{n}; sleep 0.03" for n in range(15)), guard)
    # The kernel tells of a qdisc before tc ends, and the agent reads that before the request.
    running.status()
    assert pods(running)["10.42.1.7"].guard == expected


def test_a_bridge_that_changes_is_followed(running: AgentNode, pod: dict[str, Any]) -> None:
    """The pod's MTU and its gateway's MAC are the bridge's, also after these change."""
    running.ask(**pod)
    running.sh("ip link set cni0 address 02:00:00:00:00:aa mtu 1400")
    eventually(lambda: pods(running)["10.42.1.7"].gateway_mac == "02:00:00:00:00:aa", "the MAC")
    eventually(lambda: pods(running)["10.42.1.7"].mtu == 1400, "the MTU")


def test_pods_survive_a_restart(node: AgentNode) -> None:
    """A restarted agent knows the pods that are still there, and forgets those that are not."""
    node.start()
    for number in (7, 8, 9):
        node.ask(**make_pod(node, number))
    node.stop(signal.SIGKILL)
    # The same name, and soon the same address: yet another veth.
    node.sh("ip link del veth8; ip link del veth9")
    node.sh("ip link add veth9 type veth peer name pod9; ip link set veth9 master cni0 up")
    node.start()
    assert list(pods(node)) == ["10.42.1.7"]
    assert hooks(node, "veth7") == HOOKS
    assert hooks(node, "veth9") == set()
    assert sorted(path.name for path in (node.state / "pods").iterdir()) == ["c7,eth0.json"]


def test_only_root_is_answered(running: AgentNode) -> None:
    """The socket is root's alone: its mode is 0600, and another user is hung up on."""
    path = running.state / "agent.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    program = running.state / "ask.py"
    program.write_text(ASK)
    ask = f"/usr/bin/python3 {program} {path}"
    try:
        assert running.sh(ask).startswith("answered")
        assert running.sh(f"setpriv --reuid 65534 --clear-groups {ask}") == "hung up\n"
    finally:
        path.chmod(0o600)


def test_requests_may_come_in_pieces(running: AgentNode) -> None:
    """Two requests in three pieces over one connection get two answers, in order."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(running.state / "agent.sock"))
        lines = connection.makefile("rb")
        for piece in (b'{"op": "fl', b'ush"}\n{"op": "stat', b'us"}\n'):
            connection.sendall(piece)
        assert b"epoch" in lines.readline()
        assert b"status" in lines.readline()
        connection.sendall(b"nonsense\n")
        assert b'"ok": false' in lines.readline()


def test_addresses_are_ipv4_objects(running: AgentNode, pod: dict[str, Any]) -> None:
    """Only the IPv4 address of a dual-stack pod is the programs' business."""
    running.ask(**pod)
    with running.maps() as maps:
        assert list(maps.pods()) == [IPv4Address("10.42.1.7")]
