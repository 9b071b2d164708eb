# SPDX-License-Identifier: Apache-2.0
"""The image: what is in it, and its agent in containers with no more than they need."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from container import CAPABILITIES, Podman, packages, status
from everyone import BYPASSED, everyone, stream
from rig import AGENT, ROUNDS, counted

from vxlane.datapath.abi import ABI
from vxlane.lab.waiting import wait_for

MOST = 80_000_000
"""Bytes, compressed; by gzip's fastest here, which makes more than registries do."""
FULL = "localhost/vxlane:full"
PREVIOUS = "localhost/vxlane:previous"
OLDER = f"""\
cd /usr/lib/python3/dist-packages/vxlane && \
sed -i 's/VXLANE_ABI = {ABI},/VXLANE_ABI = {ABI - 1},/' bpf/vxlane.h && \
python3 -c "import json; from vxlane.datapath import precompiled as p, source; \
made = {{**json.loads(p.FILE.read_text()), 'sources': source.digest()}}; \
p.FILE.write_text(json.dumps(made))"
"""
"""An image of another contract version, whose compiled programs are of its own sources."""


@pytest.fixture(scope="module")
def lab(make_module_lab):
    """Two nodes with vxlane, and a stock one."""
    return make_module_lab(nodes=3, pods_per_node=2, kernel_only=1, agent_options=AGENT)


def test_it_is_small(podman: Podman, image: str, tmp_path: Path) -> None:
    """Compressed it has at most 80 MB, for no compiler is in it."""
    archive = tmp_path / "image.tar"
    podman("save", "--output", str(archive), image)
    subprocess.run(["gzip", "-1", archive], check=True)
    assert archive.with_suffix(".tar.gz").stat().st_size < MOST


def test_it_says_what_it_consists_of(podman: Podman, image: str) -> None:
    """The SBOM names Debian's packages and Python's; bcc and LLVM are none of them."""
    found = packages(podman, image)
    assert {"libc6", "nftables", "vxlane", "click", "pyroute2", "prometheus-client"} <= set(found)
    assert not [name for name in found if "bpfcc" in name or "llvm" in name or "clang" in name]
    wanted = dict(line.split("==") for line in requirements())
    assert wanted.items() <= {name.lower(): version for name, version in found.items()}.items()


def requirements() -> list[str]:
    """The lines of deploy/requirements.txt."""
    text = (Path(__file__).parents[2] / "deploy" / "requirements.txt").read_text()
    return [line.lower() for line in text.splitlines() if "==" in line]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_full_flavour_compiles(podman: Podman, rootfs: Path) -> None:
    """With bcc and headers in it the image compiles, with the agent's capabilities."""
    podman.build(FULL, "--full", "--rootfs", str(rootfs.with_name("rootfs-full.tar")))
    given = [*podman.confined, "--cap-add", ",".join(CAPABILITIES)]
    podman("run", "--rm", *given, FULL, "compile", "/tmp/compiled.json")
    assert "python3-bpfcc" in packages(podman, FULL)


def test_an_upgrade_loses_no_packet(lab, podman: Podman, image: str) -> None:
    """From an image of another contract version to this one, under UDP and TCP: while no agent
    runs, and while the new one takes over, every packet arrives, and then it is bypassed.
    """
    node, nodes = lab.node("node1"), lab.lab.nodes_file
    podman.derive(PREVIOUS, image, OLDER)
    lab.kill_agent("node1")
    with everyone(lab) as talks:
        data = stream(talks, lab, "node1-pod2", "node2-pod2")
        talks.start()
        with podman.agent(PREVIOUS, node, nodes, "--ip-masq", *AGENT):
            wait_for(lambda: status(node)["bypass"] == "on", "the previous image's bypass")
            assert (node.directory / "bpf" / str(ABI - 1)).is_dir()
            talks.go_on()
        talks.go_on()
        with podman.agent(image, node, nodes, "--ip-masq", *AGENT):
            wait_for(lambda: status(node)["bypass"] == "on", "the bypass")
            talks.go_on()
            talks.stop()
            assert (talks.lost, talks.faults) == (0, [])
            assert not (node.directory / "bpf" / str(ABI - 1)).exists()
            talks.leave(data)
            talks.exchange(10)
            with lab.verdicts("node1", "node2") as seen:
                talks.exchange(ROUNDS)
            assert counted(seen) == BYPASSED
            assert status(node)["failures"] == []
    lab.start_agent("node1", *AGENT)


def test_adopt(lab, podman: Podman, image: str) -> None:
    """On a stock node the image's agent adopts what is there, and changes none of it."""
    node = lab.node("node3")
    kernel_path = "ip route; ip neigh show nud permanent; bridge fdb; iptables -t nat -S"
    before = lab.exec("node3", "sh", "-c", kernel_path).stdout
    (node.directory / "bpf").mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", node.directory / "bpf"], check=True)
    options = ("--mode", "adopt", *AGENT)
    with podman.agent(image, node, lab.lab.nodes_file, *options):
        found = status(node)
        assert (found["mode"], found["bypass"], found["failures"]) == ("adopt", "on", [])
        assert found["peers"] == 2
        assert lab.exec("node3", "sh", "-c", kernel_path).stdout == before


class Bare:
    """A node's root file system without Python, shell or env: nothing is in it but /proc, what the
    image's init container put there, and the directories that a runtime shares with plugins.
    """

    def __init__(self, directory: Path) -> None:
        self.root = directory
        self.conf = directory / "etc/cni/net.d"
        for name in ("proc", "run", "opt/cni/bin", "etc/cni/net.d"):
            (directory / name).mkdir(parents=True)

    def files(self) -> list[str]:
        """Everything that is in it."""
        return sorted(str(file.relative_to(self.root)) for file in self.root.rglob("*"))

    def launcher(self) -> Path:
        """A program of this machine that runs the plugin inside."""
        mounts = f"mount --rbind /proc {self.root}/proc; mount --rbind /run {self.root}/run"
        inside = f"exec chroot {self.root} /opt/cni/bin/vxlane"
        path = self.root.with_name("launcher")
        path.write_text(f"#!/bin/sh\nexec unshare --mount sh -ec '{mounts}; {inside}'\n")
        path.chmod(0o755)
        return path


@pytest.fixture(scope="module")
def bare(podman: Podman, image: str, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """One on which the image's init container has run."""
    made = Bare(tmp_path_factory.mktemp("bare"))
    flannel = '{"cniVersion": "0.3.1", "name": "cbr0", "plugins": [{"type": "flannel"}]}'
    (made.conf / "10-flannel.conflist").write_text(flannel)
    podman("run", "--rm", *podman.confined, "--volume", f"{made.root}:/host", image, *INSTALL)
    return made


INSTALL = ("install", "--host-root", "/host", "--form", "conflist")


def test_a_node_without_python(lab, bare: Bare) -> None:
    """The plugin makes and deletes an accelerated pod where there is no interpreter, no shell and
    no library but what the init container brought.
    """
    node = lab.node("node2")
    assert {name.partition("/")[0] for name in bare.files()} == {"etc", "opt", "proc", "run"}
    plugin = node.directory / "cni" / "bin" / "vxlane"
    plugin.unlink()
    plugin.symlink_to(bare.launcher())
    pod = lab.lab.add_pod(node)
    try:
        assert pod.veth in [each["veth"] for each in lab.vxlane("node2", "pods")]
    finally:
        lab.lab.remove_pod(pod)
    assert pod.veth not in [each["veth"] for each in lab.vxlane("node2", "pods")]


def test_what_init_leaves_can_be_taken_away(podman: Podman, image: str, bare: Bare) -> None:
    """A second run changes nothing; uninstall leaves what was there before."""
    volume = ("--volume", f"{bare.root}:/host")
    run = ("run", "--rm", *podman.confined, *volume)
    assert podman(*run, image, *INSTALL) == "nothing to do\n"
    damaged = next(bare.root.glob("opt/cni/bin/.vxlane/*/python"))
    damaged.write_bytes(b"")
    assert "wrote /host/opt/cni/bin/.vxlane/" in podman(*run, image, *INSTALL)
    assert damaged.stat().st_size > 0
    podman(*run, image, "uninstall", "--host-root", "/host")
    assert [name for name in bare.files() if "vxlane" in name] == []


def test_an_interpreter_that_is_not_there(podman: Podman, image: str, bare: Bare) -> None:
    """Install refuses it before anything is written."""
    before = bare.files()
    volume = ("--volume", f"{bare.root}:/host")
    with pytest.raises(AssertionError, match="there is no program /usr/bin/python3 below /host"):
        podman(
            "run",
            "--rm",
            *podman.confined,
            *volume,
            image,
            *INSTALL,
            "--interpreter",
            "/usr/bin/python3",
        )
    assert bare.files() == before
