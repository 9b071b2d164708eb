# SPDX-License-Identifier: Apache-2.0
"""What an agent can do in a container, and how it says what it lacks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from agentnode import AgentNode, eventually

from vxlane.agent import sole
from vxlane.errors import VxlaneError
from vxlane.lab import namespaces
from vxlane.lab.agents import program

OF_THE_IMAGE = [
    name.lower()
    for name in (Path(__file__).parents[2] / "deploy/capabilities.txt").read_text().split()
]
ADVICE = "set it on the host: sysctl -w"
READ_ONLY = 'mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; exec "$@"'
MOUNTS = ("unshare", "--mount")
"""A mount namespace of its own, as a container without propagation has it."""
PROCESSES = ("unshare", "--pid", "--fork", "--kill-child")


def only(*capabilities: str) -> tuple[str, ...]:
    """The prefix of a command that has no others, as a container runtime drops them."""
    kept = ",".join(f"+{name}" for name in capabilities)
    return ("setpriv", "--bounding-set", f"-all,{kept}", "--inh-caps", f"-all,{kept}")


@pytest.fixture
def bpffs(node: AgentNode) -> Iterator[None]:
    """A bpffs that the runtime mounted for the agent."""
    directory = node.state / "bpf"
    directory.mkdir()
    subprocess.run(["mount", "-t", "bpf", "vxlane-test", str(directory)], check=True)
    yield
    node.stop_if_running()


def test_net_admin_gives_the_kernel_path(node: AgentNode) -> None:
    """With NET_ADMIN the node has its network; to mount a bpffs SYS_ADMIN is named."""
    node.start(prefix=only("net_admin"))
    assert "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink" in node.sh("ip route")
    status = node.status()
    assert (status["ready"], status["bypass"]) == (True, "unavailable")
    [failure] = status["failures"]
    assert failure.endswith("bpf: Operation not permitted; this process lacks CAP_SYS_ADMIN")


@pytest.mark.usefixtures("bpffs")
def test_those_of_the_image_are_enough(node: AgentNode) -> None:
    """On a bpffs that is mounted already, the bypass needs what deploy/capabilities.txt lists."""
    node.start(prefix=only(*OF_THE_IMAGE))
    status = node.status()
    assert (status["ready"], status["bypass"], status["failures"]) == (True, "on", [])
    assert node.attached()


WITHOUT = {
    "bpf": "this process lacks CAP_BPF",
    "perfmon": "this process lacks CAP_PERFMON; all of the verifier's words are in",
}


@pytest.mark.usefixtures("bpffs")
@pytest.mark.parametrize("dropped", [name for name in OF_THE_IMAGE if name != "net_admin"])
def test_each_of_them_is_needed(node: AgentNode, dropped: str) -> None:
    """Without BPF no map is made, without PERFMON the verifier refuses a program and says why: each
    is named.
    """
    node.start(prefix=only(*(set(OF_THE_IMAGE) - {dropped})))
    [failure] = node.status()["failures"]
    assert WITHOUT[dropped] in failure


def test_without_net_admin_nothing_is_begun(node: AgentNode) -> None:
    """One sentence names NET_ADMIN."""
    command = namespaces.inside(node.netns, [*only("sys_admin"), program("vxlane"), "agent"])
    command += ["--state-dir", str(node.state), "--nodes-file", str(node.nodes_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "the agent lacks CAP_NET_ADMIN" in line


def test_read_only_settings(node: AgentNode) -> None:
    """Where /proc/sys is read-only the setting is named with the command for the host."""
    node.sh("sysctl -qw net.ipv4.ip_forward=1")
    node.start(prefix=(*MOUNTS, "sh", "-ec", READ_ONLY, "sh"))
    name = "net.netfilter.nf_conntrack_tcp_be_liberal"
    [failure] = node.status()["failures"]
    assert failure == f"set sysctl {name}=1: Read-only file system; {ADVICE} {name}=1"
    assert "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink" in node.sh("ip route")
    node.sh(f"sysctl -qw {name}=1 net.netfilter.nf_conntrack_tcp_ignore_invalid_rst=1")
    eventually(lambda: node.status()["bypass"] == "on", "the bypass", seconds=10)


def test_mounts_that_are_not_propagated(node: AgentNode) -> None:
    """The host's status knows the agent and says where its pins are; the next agent says why."""
    node.start(prefix=MOUNTS)
    pid = sole.holder(node.state)
    command = [program("vxlane"), "status", "--json"]
    env = {"VXLANE_STATE_DIR": str(node.state)}
    said = namespaces.run(node.netns, *command, env=env, check=False).stdout
    assert f"agent {pid} has them in a mount namespace of its own" in said
    assert "propagation Bidirectional" in said
    assert '"mode": "own"' in said
    node.stop()
    node.start(prefix=MOUNTS)
    assert "what the last agent pinned is gone; in a container each restart" in node.log()


def test_detach_ends_an_agent_by_its_number_here(node: AgentNode) -> None:
    """An agent that is process 1 of its own namespace is ended, and not the host's process 1."""
    node.start(prefix=PROCESSES)
    assert node.status()["pid"] == 1
    node.detach()
    assert node.process
    node.process.wait(timeout=5)
    assert node.attached() == set()


def test_process_1_is_never_ended(tmp_path, monkeypatch) -> None:
    """Inside the container of an agent detach would end itself too: it says what to do."""
    monkeypatch.setattr(sole, "holder", lambda _: 1)
    with pytest.raises(VxlaneError, match="the agent is process 1 here; end its container"):
        sole.stop(tmp_path)


def test_only_the_holder_of_the_lock_is_ended(tmp_path) -> None:
    """A process that the lock does not name, or that has the directory not open, lives on."""
    assert sole.holder(tmp_path) is None
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            assert not sole._has_open(stranger.pid, tmp_path)
            sole.stop(tmp_path)
            assert stranger.poll() is None
        finally:
            stranger.kill()
