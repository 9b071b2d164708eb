# SPDX-License-Identifier: Apache-2.0
"""The agent comes and goes; what it made stays, is taken over, and is undone only when asked."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from agentnode import AgentNode, eventually, mac, make_pod

from vxlane.agent.detach import detach
from vxlane.datapath.programs import pin_directory
from vxlane.lab import namespaces

README = Path(__file__).parents[2] / "loader/vxlane/agent/README.md"
STATE_DIRECTORY = README.read_text().partition("## The state directory")[2].partition("##")[0]
STRANGER = """
ip link add flannel.1 address 02:00:00:00:00:42 type vxlan id 1 dev eth0 local 192.168.77.1 \
    dstport 8472 nolearning
ip link set flannel.1 up
"""
STALE = """
ip neigh add 10.42.9.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent
bridge fdb add 02:00:00:00:00:99 dev flannel.1 dst 192.168.77.9 self permanent
ip route add 10.42.9.0/24 via 10.42.9.0 dev flannel.1 onlink
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
def test_the_datapath_outlives_the_agent(node: AgentNode, number: int) -> None:
    """After SIGTERM, within a second, and after SIGKILL the kernel path and the hooks stand."""
    node.start()
    before, attached = node.kernel_path(), node.attached()
    assert attached
    assert node.stop(number) < 1.0
    assert node.kernel_path() == before
    assert node.attached() == attached


def test_a_restart_changes_nothing(node: AgentNode) -> None:
    """A restarted agent takes device, entries, rules and hooks over: it writes none of them."""
    node.start()
    # The kernel adds a route of its own when it has found the new device's IPv6 address unique.
    settled = "ip -6 -o addr show dev flannel.1"
    eventually(lambda: "tentative" not in node.sh(settled), "duplicate address detection")
    before = node.kernel_path()
    node.stop(signal.SIGKILL)
    said = len(node.log())
    with node.watch("neigh", "route") as seen:
        node.start()
    assert node.kernel_path() == before
    assert [line for line in seen if "flannel.1" in line] == []
    for word in ("add device", " put ", "attach ", "loaded, compiled with"):
        assert word not in node.log()[said:]


def test_stale_entries_are_removed_at_start(node: AgentNode) -> None:
    """What a dead agent or flanneld left of vanished peers goes when the agent starts."""
    node.sh(STRANGER, STALE)
    node.start()
    assert "10.42.9.0" not in json.dumps(node.kernel_path())
    assert "remove route 10.42.9.0/24" in node.log()


def test_a_device_of_flanneld_is_taken_over(node: AgentNode) -> None:
    """An existing device that fits keeps its ifindex; only what differs is changed in place."""
    node.sh(STRANGER)
    index = node.link("flannel.1")["ifindex"]
    node.start()
    assert node.link("flannel.1")["ifindex"] == index
    assert f"set MAC of flannel.1 to {mac(1)}: was 02:00:00:00:00:42" in node.log()


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("type vxlan id 7 dev eth0 local 192.168.77.1 dstport 8472 nolearning", "VNI is 7, not 1"),
        ("type vxlan id 1 dev eth0 local 192.168.77.1 dstport 8472", "learning is True, not False"),
        ("type vxlan id 1 local 192.168.77.1 dstport 8472 nolearning", "underlay interface # is 0"),
        ("type vxlan id 1 dev eth0 local 192.168.77.9 dstport 8472 nolearning", "192.168.77.9"),
        ("type vxlan id 1 dev eth0 local 192.168.77.1 dstport 8472 nolearning gbp", "policy"),
        ("type vxlan id 1 dev eth0 dstport 8472 nolearning", "not a VXLAN tunnel with a local"),
        ("type bridge", "it is a bridge device"),
    ],
    ids=["vni", "learning", "link", "local", "gbp", "no-local", "kind"],
)
def test_a_device_that_does_not_fit_is_replaced(node: AgentNode, device: str, reason: str) -> None:
    """A device of that name that can't be made to fit is replaced, and the log says why."""
    node.sh(f"ip link add flannel.1 {device}")
    node.start(wait=False)
    eventually(lambda: "put route 10.42.3.0/24" in node.log(), "the kernel path", seconds=10)
    [line] = [line for line in node.log().splitlines() if "remove device flannel.1" in line]
    assert reason in line
    data = node.kernel_path()["link"]["linkinfo"]["info_data"]
    assert (data["id"], data["local"], data["port"]) == (1, "192.168.77.1", 8472)


def test_detach_leaves_the_node_as_it_was(node: AgentNode) -> None:
    """After detach --network, with the agent alive, nothing but settings that it names is left."""
    node.sh("sysctl -q net.ipv4.ip_forward=0")
    before = node.everything()
    node.start()
    assert node.everything() != before
    for name in re.findall(r"^\| (.*?) \|", STATE_DIRECTORY, re.MULTILINE):
        for file in re.findall(r"`([a-z.-]+)`", name):
            (node.state / file).touch()
    said = node.detach("--network")
    assert node.process
    assert node.process.wait(timeout=5) == 0
    after = node.everything()
    assert after | {"sysctls": ""} == before | {"sysctls": ""}
    for name in ("net.ipv4.ip_forward", "net.netfilter.nf_conntrack_tcp_be_liberal"):
        assert f"{name} = 1" in after["sysctls"]
        assert f"leave {name} as it is; it was 0: sysctl -w {name}=0" in said
    assert sorted(path.name for path in node.state.iterdir()) == ["log", "nodes.yaml"]
    node.detach("--network")
    assert node.everything() == after


@pytest.mark.parametrize("method", ["tcx", "clsact"])
def test_detach_without_the_pins(node: AgentNode, method: str) -> None:
    """Filters of clsact live without pins, as those of another contract version do without ours."""
    before = node.everything()
    node.start(f"--attach={method}")
    node.stop(signal.SIGKILL)
    shutil.rmtree(pin_directory(node.state))
    node.detach("--network")
    assert node.everything() | {"sysctls": ""} == before | {"sysctls": ""}


def test_detach_of_nothing_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that is not there, for its name is wrong, say, is named."""
    with caplog.at_level("INFO"):
        detach(tmp_path / "none")
    assert caplog.messages == [f"leave all as it is: there is no state directory {tmp_path}/none"]


def test_detach_works_when_the_agent_is_dead(node: AgentNode) -> None:
    """After kill -9 detach removes the bypass alone, and with --network the kernel path."""
    before = node.everything()
    node.start()
    made = node.kernel_path()
    node.stop(signal.SIGKILL)
    node.start()
    node.stop(signal.SIGKILL)
    said = node.detach()
    assert node.attached() == set()
    assert node.kernel_path() == made
    assert node.subnet_file.exists()
    assert "leave the kernel path: device, routes, rules; --network removes them too" in said
    node.detach("--network")
    assert node.everything() | {"sysctls": ""} == before | {"sysctls": ""}


def test_detach_leaves_what_flanneld_made(node: AgentNode) -> None:
    """A device that was there before the agent stays after detach, with its entries and rules."""
    node.sh(STRANGER)
    node.start()
    made = node.kernel_path()
    node.detach()
    assert node.kernel_path() == made
    assert node.subnet_file.exists()
    assert node.attached() == set()


def test_a_second_agent_is_refused(running: AgentNode) -> None:
    """Two agents can't share a state directory: the second ends and names the first."""
    pid = running.status()["pid"]
    second = subprocess.run(
        [*running.command(), "--mode", "adopt", "--state-dir", str(running.state)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"agent {pid} runs with" in second.stderr
    assert len(second.stderr.splitlines()) == 1


def test_a_second_agent_may_stand_by(node: AgentNode) -> None:
    """It changes nothing and answers nobody while the first one serves, and takes over then."""
    node.start("--healthz-port=8471")
    first = node.process
    assert first is not None
    node.start("--healthz-port=8471", "--stand-by", wait=False)
    second = node.process
    assert second is not None
    eventually(lambda: "this one stands by until it ends" in node.log(), "the second one")
    assert node.status()["pid"] == first.pid
    before = node.attached()
    first.terminate()
    first.wait(timeout=10)
    eventually(lambda: node.is_ready() and node.status()["pid"] == second.pid, "the take-over")
    assert node.attached() == before
    assert "taken over as compiled with" in node.log()


def test_ready_is_told_by_file_and_to_systemd(node: AgentNode, tmp_path: Path) -> None:
    """The ready file appears when the agent is ready and goes with it; systemd hears both."""
    ready = tmp_path / "ready"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        node.start("--ready-file", str(ready), env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(64) == b"READY=1"
        assert ready.exists()
        node.stop()
        assert manager.recv(64) == b"STOPPING=1"
    assert not ready.exists()


def test_without_a_source_it_is_flannelds_etcd(node: AgentNode) -> None:
    """Without a source of nodes the agent asks etcd where flanneld does, and says that it waits."""
    node.start(nodes=False, wait=False)
    eventually(lambda: "not started yet: " in node.log(), "the sentence", seconds=30)
    assert "127.0.0.1:2379" in node.log()


def test_without_iptables_everything_else_is_made(node: AgentNode, tmp_path: Path) -> None:
    """One thing that can't be made is reported and tried again, and stops nothing else."""
    for tool in ("nsenter", "nft"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    node.start(env={"PATH": str(tmp_path)}, wait=False)
    eventually(lambda: "from_nic to eth0" in node.log(), "the bypass", seconds=20)
    assert node.subnet_file.exists()
    assert "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink " in node.kernel_path()["routes"]
    eventually(lambda: node.status()["bypass"] == "on", "the lease")
    status = node.status()
    assert not status["ready"]
    assert status["failures"] == ["iptables-restore is not installed; install it"]
    (tmp_path / "iptables").symlink_to("/usr/sbin/iptables")
    (tmp_path / "iptables-restore").symlink_to("/usr/sbin/iptables-restore")
    eventually(node.is_ready, "ready", seconds=20)
    assert node.status()["failures"] == []


@pytest.mark.parametrize("sign", ["device", "subnet.env"])
def test_a_network_of_flanneld_stays_flannelds(node: AgentNode, sign: str) -> None:
    """What flanneld made stays at detach --network, also when we had to make it anew."""
    if sign == "device":
        node.sh(STRANGER)
    else:
        node.subnet_file.write_text("FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\n")
    node.start()
    node.stop()
    node.sh("ip link del flannel.1")
    node.start()
    assert "add device flannel.1" in node.log()
    made = node.kernel_path()
    said = node.detach("--network")
    assert "leave the kernel path: it was not made by vxlane" in said
    assert node.kernel_path() == made
    assert node.subnet_file.exists()


@pytest.mark.parametrize("way", ["bridge", "ptp"])
def test_detach_takes_no_network_from_pods(node: AgentNode, way: str) -> None:
    """While pods live on the network detach --network changes nothing, and names them."""
    node.start()
    make_pod(node, 7)
    if way == "bridge":
        node.sh("ip addr add 10.42.1.1/24 dev cni0")
    else:
        node.sh("ip link set veth7 nomaster; ip route add 10.42.1.7/32 dev veth7")
    before = node.everything()
    said = node.detach("--network", check=False)
    assert "pods use this node's network (veth7); drain the node" in said
    assert node.everything() == before
    assert node.is_ready()
    node.detach()
    assert (node.attached(), node.link("flannel.1")["mtu"]) == (set(), 1450)
    node.sh("ip link del veth7")
    node.detach("--network")
    assert "flannel.1" not in node.sh("ip link")


def test_detach_takes_no_network_from_a_flanneld(node: AgentNode, tmp_path: Path) -> None:
    """While a flanneld lives on the node detach --network changes nothing, and names it."""
    node.start()
    node.stop()
    before = node.everything()
    flanneld = tmp_path / "flanneld"
    flanneld.symlink_to(str(shutil.which("sleep")))
    command = namespaces.inside(node.netns, [str(flanneld), "60"])
    with subprocess.Popen(command) as process:
        try:
            name = Path(f"/proc/{process.pid}/comm")
            eventually(lambda: name.read_text() == "flanneld\n", "flanneld")
            said = node.detach("--network", check=False)
        finally:
            process.kill()
    assert f"flanneld (process {process.pid}) keeps this node's network now" in said
    assert node.everything() == before
    node.detach("--network")
    assert "flannel.1" not in node.sh("ip link")
