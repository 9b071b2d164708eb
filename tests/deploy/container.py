# SPDX-License-Identifier: Apache-2.0
"""Images of vxlane, built by deploy/build, and containers of them on the nodes of a lab."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from podmanconf import CONTAINERS_CONF

from vxlane.lab import namespaces
from vxlane.lab.plan import LABS, LabNode
from vxlane.lab.waiting import wait_for
from vxlane.show.node import call

DEPLOY = Path(__file__).parents[2] / "deploy"
CAPABILITIES = (DEPLOY / "capabilities.txt").read_text().split()


def _confinement(manifest: Path) -> Iterator[str]:
    """The securityContext that all containers of a manifest have in common, in podman's words."""
    pod = next(
        document["spec"]["template"]["spec"]
        for document in yaml.safe_load_all(manifest.read_text())
        if document["kind"] == "DaemonSet"
    )
    for container in (*pod["initContainers"], *pod["containers"]):
        said = dict(container["securityContext"])
        assert said.pop("capabilities")["drop"] == ["ALL"]
        assert said == {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsUser": 0,
            "runAsGroup": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    yield from ("--cap-drop", "all", "--security-opt", "no-new-privileges", "--read-only")
    yield from ("--user", "0:0")


def _runtime_default() -> str:
    """The seccomp profile RuntimeDefault of containerd and Docker since 2023: the one that Debian
    12's podman brings, but each of these calls is allowed with its own capability. There both take
    CAP_SYS_ADMIN.
    """
    profile = json.loads(Path("/usr/share/containers/seccomp.json").read_text())
    own = {"bpf": "CAP_BPF", "perf_event_open": "CAP_PERFMON"}
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in own]
    profile["syscalls"] += [
        {"names": [call], "action": "SCMP_ACT_ALLOW", "includes": {"caps": [capability]}}
        for call, capability in own.items()
    ]
    return json.dumps(profile)


class Podman:
    """Podman with a storage of its own."""

    def __init__(self, directory: Path) -> None:
        # podman allows its --runroot 50 characters, and a test's directory may have more.
        self._run = Path(tempfile.mkdtemp(prefix="vxlane-"))
        self.places = ["--root", str(directory / "root"), "--runroot", str(self._run)]
        self._conf = directory / "containers.conf"
        self._conf.write_text(CONTAINERS_CONF)
        profile = directory / "seccomp.json"
        profile.write_text(_runtime_default())
        manifest = DEPLOY / "manifests" / "adopt" / "vxlane.yaml"
        self.confined = (*_confinement(manifest), "--security-opt", f"seccomp={profile}")
        """As the chart has it. The agent's container has `CAPABILITIES` besides, which
        tests/deploy/test_chart.py holds against the chart's."""

    def close(self) -> None:
        """Remove all images."""
        self("rmi", "--all", "--force")
        shutil.rmtree(self._run)

    def build(self, tag: str, *options: str) -> None:
        """Build an image of this checkout."""
        self._done(DEPLOY / "build", *options, tag, *self.places)

    def derive(self, tag: str, base: str, script: str) -> None:
        """Make an image of another in which a script has run."""
        text = f"FROM {base}\nRUN {script}\n"
        self("build", "--quiet", "--isolation", "chroot", "--tag", tag, "-f", "-", ".", given=text)

    def __call__(self, *arguments: str, netns: str | None = None, given: str | None = None) -> str:
        """Run podman, on a node; what it says."""
        argv = namespaces.inside(netns, ["podman", *self.places, *arguments])
        return self._done(*argv, given=given)

    def _done(self, *argv: str | Path, given: str | None = None) -> str:
        env = os.environ | {"CONTAINERS_CONF": str(self._conf)}
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, env=env, input=given, cwd="/"
        )
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def agent(self, image: str, node: LabNode, nodes: Path, *options: str) -> Iterator[None]:
        """An agent in a container on a node of a lab, as a DaemonSet has it, for a block.

        It has the host's /run/vxlane, a bpffs, the pods' namespaces, and what of /proc/sys is the
        network's.
        """
        ready = node.directory / "ready"
        ready.unlink(missing_ok=True)
        volumes = [f"{LABS}:{LABS}", f"{node.directory}/bpf:{node.directory}/bpf"]
        volumes += ["/run/netns:/run/netns:ro", "/proc/sys/net:/host/proc/sys/net"]
        argv = ["run", "--detach", "--network", "host", *self.confined]
        argv += ["--cap-add", ",".join(CAPABILITIES), "--env", f"VXLANE_STATE_DIR={node.directory}"]
        argv += [word for volume in volumes for word in ("--volume", volume)]
        argv += [image, "agent", "--nodes-file", str(nodes), "--node-name", node.name]
        argv += ["--iface", "eth0", "--ready-file", str(ready), *options]
        made = self(*argv, netns=node.name).strip()
        try:
            wait_for(ready.exists, f"the agent of {node.name}: {self('logs', made)}", seconds=30)
            yield
            self("stop", made)
        finally:
            self("rm", "--force", made)


def status(node: LabNode) -> dict[str, object]:
    """What a node's agent says of itself."""
    answer: dict[str, object] = call(node.directory, {"op": "status"})["status"]
    return answer


def packages(podman: Podman, image: str) -> dict[str, str]:
    """What the image says it consists of: name -> version."""
    run = ["run", "--rm", "--entrypoint", "cat", image]
    document = json.loads(podman(*run, "/usr/share/vxlane/sbom.spdx.json"))
    return {each["name"]: each["versionInfo"] for each in document["packages"]}
