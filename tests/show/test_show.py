# SPDX-License-Identifier: Apache-2.0
"""`vxlane status|peers|pods|flows|stats` on a living node."""

import os

from click.testing import CliRunner

from vxlane.cli.status import status
from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for

ENTRY = {"packets", "bytes"}


def test_status(lab):
    """The agent's word and the programs' settings, and exit status 0 while packets are bypassed."""
    status = lab.vxlane("node1", "status")
    assert status["agent"]["pid"] == lab.agent_pid("node1")
    assert status["programs"]["bypassing"] is True
    assert 0 < status["programs"]["lease_seconds"] <= 3
    assert status["programs"]["address"] == lab.address("node1")
    assert (status["programs"]["peers"], status["programs"]["pods"]) == (2, 2)


def test_status_of_programs_that_stand_aside(lab):
    """While nothing is bypassed `vxlane status` says so and ends with status 1."""
    lab.ask("node1", op="bypass", enabled=False)
    try:
        env = {"VXLANE_STATE_DIR": str(lab.node("node1").directory)}
        done = lab.exec("node1", program("vxlane"), "status", env=env, check=False)
        assert done.returncode == 1
        assert "bypassing           no" in done.stdout
    finally:
        lab.ask("node1", op="bypass", enabled=True)


def test_kernel(lab):
    """`vxlane status --kernel` tells what was tried, and no bypass here lacks anything."""
    shown = lab.vxlane("node1", "status", "--kernel")
    answers = {each["probe"]: each["answer"] for each in shown["probes"]}
    assert answers["redirect_peer"] == "yes"
    assert {"last_port", "decap_l4_udp", "tcx", "coarse_clock"} <= answers.keys()
    done = lab.exec("node1", program("vxlane"), "status", "--kernel")
    assert done.stdout.startswith(f"LINUX {shown['release']}\n")
    assert "redirect_peer" in done.stdout


def test_kernel_without_root(monkeypatch):
    """What can't be tried is not told to be missing."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(status, ["--kernel"])
    assert (done.stdout, "needs root; run it again with sudo" in str(done.exception)) == ("", True)


def test_peers(lab):
    """Each other node, by the CIDR of its pods, with the way to it."""
    first, second = lab.vxlane("node1", "peers")
    assert first | {"tx_packets": 0, "tx_bytes": 0, "rx_packets": 0, "rx_bytes": 0} == {
        "cidr": "10.42.2.0/24",
        "address": lab.address("node2"),
        "vtep_mac": lab.node("node2").vtep_mac,
        "way": "tunnel",
        "next_hop": lab.address("node2"),
        "nic": "eth0",
        "mtu": 1450,
        "tx_packets": 0,
        "tx_bytes": 0,
        "rx_packets": 0,
        "rx_bytes": 0,
    }
    assert second["cidr"] == "10.42.3.0/24"


def test_pods(lab):
    """Each accelerated pod, with its devices as the kernel names them."""
    first, _ = lab.vxlane("node1", "pods")
    pod = lab.pod("node1-pod1")
    assert first["address"] == str(pod.address)
    assert (first["veth"], first["mac"], first["bridge"]) == (pod.veth, pod.mac, "cni0")
    assert (first["mtu"], first["guarded"]) == (1450, [])


def test_pods_that_a_rule_for_all_concerns(lab):
    """Each of them is judged, as one is that a rule names, and while the rule is there."""
    rule = ("FORWARD", "-m", "limit", "--limit", "10/s", "-j", "ACCEPT")
    for action, guarded in (("-I", ["judged"]), ("-D", [])):
        lab.exec("node1", "iptables", action, *rule)
        wait_for(
            lambda wanted=guarded: all(
                pod["guarded"] == wanted for pod in lab.vxlane("node1", "pods")
            ),
            f"pods with {guarded}",
        )


def test_flows_and_flush(lab):
    """A flow that was approved is listed; a flush withdraws it, and it is learned anew."""
    target = lab.address("node2-pod1")
    ping = ["ping", "-e", str(os.getpid() % 65536), "-c", "3", "-i", "0.05", target]

    def flow():
        listed = lab.vxlane("node1", "flows")
        return next(
            entry
            for entry in listed
            if entry["remote"] == target and entry["local_port"] == os.getpid() % 65536
        )

    lab.exec("node1-pod1", *ping)
    before = flow()
    assert before["protocol"] == "icmp"
    assert before["local"] == lab.address("node1-pod1")
    assert before["withdrawn"] is False
    assert 0 <= before["in_age_seconds"] < 10
    epoch = lab.vxlane("node1", "flows", "flush")["epoch"]
    assert flow()["withdrawn"] is True
    assert lab.vxlane("node1", "status")["programs"]["epoch"] == epoch
    with lab.verdicts("node1") as seen:
        lab.exec("node1-pod1", *ping)
    assert seen["from_pod", "flow_withdrawn"] == 1
    assert flow()["withdrawn"] is False


def test_stats(lab):
    """Every counter of every program, what peers were sent, and the bypassed share."""
    lab.exec("node1-pod1", "ping", "-c", "5", "-i", "0.05", lab.address("node2-pod1"))
    stats = lab.vxlane("node1", "stats")
    assert stats["programs"].keys() == {"from_pod", "to_pod", "from_nic", "to_nic"}
    counted = stats["programs"]["from_pod"]["encapsulated"]
    assert counted.keys() == ENTRY
    assert counted["packets"] >= 3
    # Of translated packets some went to a pod of this node.
    to_peers = sum(peer["tx_packets"] for peer in stats["peers"]) - counted["packets"]
    assert 0 <= to_peers <= stats["programs"]["from_pod"]["nat"]["packets"]
    total = stats["bypassed"]["total"]
    assert 0 < total["bypassed"] <= total["packets"]
    assert total["share"] == round(total["bypassed"] / total["packets"], 6)


def test_tables(lab):
    """Without --json each command prints a table under its header, in a terminal's 80 columns where
    figures and translated addresses do not need more.
    """
    env = {"VXLANE_STATE_DIR": str(lab.node("node1").directory), "COLUMNS": "80"}
    headers = {"peers": "CIDR", "pods": "NAME", "flows": "PROTO", "stats": "PROGRAM"}
    for command, word in headers.items():
        shown = lab.exec("node1", program("vxlane"), command, env=env).stdout
        assert shown.startswith(word)
        needs_more = command in {"flows", "stats"}
        assert needs_more or max(map(len, shown.splitlines())) <= 80, shown
