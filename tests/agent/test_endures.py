# SPDX-License-Identifier: Apache-2.0
"""The agent lives, whatever becomes of its state directory."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from agentnode import AgentNode, eventually
from test_bypass import READY, lease
from test_pods import make_pod, pods
from test_watched import fetch

from vxlane.datapath import pins, syscall
from vxlane.datapath.abi import ABI
from vxlane.datapath.programs import pin_directory
from vxlane.errors import VxlaneError

PROBED = "--healthz-port=8081"
DEEP = '{"sysctls": ' + "[" * 100_000


def is_ready(node: AgentNode) -> bool:
    """What a probe hears, which needs no file; False while nothing listens."""
    try:
        return fetch(node, READY) == "200 flanneld is ready"
    except VxlaneError:
        return False


def mount(*arguments: str) -> None:
    """Mount, here and not in the node."""
    subprocess.run(["mount", *arguments], check=True)


@pytest.fixture
def disk(node: AgentNode) -> Iterator[Path]:
    """A small file system of the node's own, which is its state directory for the test."""
    state, node.state = node.state, node.state / "disk"
    node.state.mkdir()
    mount("-t", "tmpfs", "-o", "mode=0700,size=256k,nr_inodes=64", "vxlane-test", str(node.state))
    yield node.state
    node.stop_if_running()
    subprocess.run(["umount", "--recursive", str(node.state)], check=True)
    node.state = state


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """No byte and no name more."""
    filler = disk / "filler"
    filler.mkdir()
    with contextlib.suppress(OSError):
        (filler / "0").write_bytes(bytes(1 << 20))
    with contextlib.suppress(OSError):
        for number in itertools.count(1):
            (filler / str(number)).touch()
    yield
    for file in filler.iterdir():
        file.unlink()


@contextlib.contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """As the kernel leaves a disk after an error."""
    mount("-o", "remount,ro", str(disk))
    yield
    mount("-o", "remount,rw", str(disk))


@pytest.mark.parametrize("damaged", [full, read_only])
def test_a_disk_that_takes_no_write(node: AgentNode, disk: Path, damaged) -> None:
    """On a full or read-only disk an agent starts, bypasses and says what it lacks; it recovers."""
    node.start()
    node.ask(**make_pod(node, 7))
    node.stop()
    # A socket that was left there would leave its name to the next one.
    (disk / "agent.sock").unlink(missing_ok=True)
    with damaged(disk):
        node.start(PROBED, wait=False)
        eventually(lambda: is_ready(node), "ready", seconds=20)
        assert lease(node) > 1
        assert list(pods(node)) == ["10.42.1.7"]
        node.sh("ip link del flannel.1")
        eventually(lambda: "10.42.2.0/24 via" in node.sh("ip route"), "the repair")
        for file in ("agent.json: ", "agent.sock: "):
            eventually(lambda file=file: file in node.log(), file)
    eventually(node.is_ready, "an answer by the socket")
    assert node.ask(**make_pod(node, 8))["accelerated"]
    eventually(lambda: node.status()["failures"] == [], "no failure")


def test_a_first_start_on_a_disk_that_takes_no_write(node: AgentNode, disk: Path) -> None:
    """The node has its network, though there is no place for a bypass; which comes afterwards."""
    with read_only(disk):
        node.start(PROBED, wait=False)
        eventually(lambda: is_ready(node), "ready", seconds=20)
        assert "10.42.2.0/24 via" in node.sh("ip route")
        assert "bypass: " in node.log()
    eventually(lambda: node.is_ready() and node.status()["bypass"] == "on", "bypass", seconds=30)
    eventually(lambda: '"network": "10.42.0.0/16"' in (disk / "undo").read_text(), "the note")


NAMES = ("undo", "nodes.json", f"programs-{ABI}.json", "pods/c1,eth0.json", "agent.json")


@pytest.mark.parametrize("shape", ["deep", "binary", "directory"])
def test_files_that_no_agent_wrote(node: AgentNode, shape: str) -> None:
    """Damage to any file in the state directory costs what it held, and no start."""
    for name in NAMES:
        path = node.state / name
        if shape == "directory":
            (path / "inside").mkdir(parents=True)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(DEEP.encode() if shape == "deep" else b"\xff\xfe\x00" * 99)
    node.start()
    assert node.status()["bypass"] == "on"
    node.stop()
    node.detach("--network")
    assert "flannel.1" not in node.sh("ip link")


def test_a_socket_that_is_removed_comes_back(node: AgentNode) -> None:
    """What cleans /run up does not part the CNI plugin from the agent for good."""
    node.start()
    (node.state / "agent.sock").unlink()
    eventually(node.is_ready, "an answer by the socket")


def test_a_directory_that_others_may_write_to_is_refused(node: AgentNode) -> None:
    """Anyone could have the agent undo what it never did; one that others may read is fine."""
    node.state.chmod(0o755)
    node.start()
    node.stop()
    node.state.chmod(0o777)
    command = [*node.command(), "--state-dir", str(node.state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"others may write to {node.state}: make it root's, mode 0700" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_bytes_of_any_encoding(node: AgentNode) -> None:
    """Latin-1 in a comment of someone's rule, or in subnet.env, is no reason to fail."""
    node.sh("iptables -A FORWARD -m comment --comment \"$(printf 'caf\\351')\" -j ACCEPT")
    node.subnet_file.write_bytes(b"# caf\xe9\nFLANNEL_SUBNET=10.42.1.1/24\n")
    node.start()
    assert node.status()["failures"] == []
    node.detach()


def test_no_setting_of_the_machine_is_touched(node: AgentNode, tmp_path: Path) -> None:
    """RCU's knobs are the whole machine's: what an agent sets there, kill -9 would leave set."""
    knob = tmp_path / "rcu_expedited"
    knob.write_text("0\n")
    before = knob.stat().st_mtime_ns
    script = f'mount --bind {knob} /sys/kernel/rcu_expedited; exec "$@"'
    node.start(prefix=("unshare", "--mount", "sh", "-ec", script, "sh"))
    for number in (7, 8):
        assert node.ask(**make_pod(node, number))["accelerated"]
        assert node.ask(op="remove", container_id=f"c{number}", ifname="eth0")["ok"]
    assert knob.stat().st_mtime_ns == before


def unmount(directory: Path) -> None:
    """Take the whole bpffs away."""
    subprocess.run(["umount", str(directory.parent)], check=True)


def remove(directory: Path) -> None:
    """Take one pin away."""
    (directory / "to_pod").unlink()


def replace(directory: Path) -> None:
    """Put one object in another's place."""
    other = syscall.obj_get(directory / "from_pod")
    syscall.obj_replace(other, directory / "from_nic")
    os.close(other)


@pytest.mark.parametrize("damage", [unmount, remove, replace])
def test_pins_are_made_anew(node: AgentNode, damage) -> None:
    """Without its pins the bypass is not called on, and it is back with all pods in seconds."""
    node.start()
    node.ask(**make_pod(node, 7))
    directory = pin_directory(node.state)
    before, attached = pins.read(directory), node.attached()
    with node.halted():
        damage(directory)
    assert node.status()["bypass"] != "on" or pins.read(directory).keys() == before.keys()

    def are_new() -> bool:
        now = pins.read(directory)
        return now.keys() == before.keys() and not set(now.values()) & set(before.values())

    eventually(are_new, "the pins", seconds=20)
    eventually(lambda: node.attached() == attached, "the programs")
    eventually(lambda: node.status()["bypass"] == "on", "the bypass")
    assert lease(node) > 0
    assert list(pods(node)) == ["10.42.1.7"]
