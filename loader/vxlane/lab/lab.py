# SPDX-License-Identifier: Apache-2.0
"""A whole lab: up, down, and its file /run/vxlane-lab/<name>/lab.json.

The file is written before the first namespace, and read by every other command. `down` does not
need it: it removes everything with the lab's names, so a killed `up` leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vxlane.agent import sole
from vxlane.errors import LabError
from vxlane.lab import agents, kernel_node, namespaces, pods, underlay
from vxlane.lab.plan import (
    LABS,
    LabNode,
    LabPod,
    check_name,
    is_namespace_of,
    plan_nodes,
    switch_name,
)
from vxlane.util import files
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Lab:
    """A lab that is up, or is being made."""

    name: str
    nodes: tuple[LabNode, ...]
    pods: list[LabPod] = field(default_factory=list)

    @property
    def nodes_file(self) -> Path:
        """The node list that all agents follow."""
        return LABS / self.name / "nodes.json"

    def node(self, name: str) -> LabNode:
        """A node by its full name."""
        return next(node for node in self.nodes if node.name == name)

    def pod(self, name: str) -> LabPod:
        """A pod by its full name."""
        return next(pod for pod in self.pods if pod.name == name)

    def accelerated(self) -> list[LabNode]:
        """The nodes that run an agent."""
        return [node for node in self.nodes if not node.kernel_only]

    def add_pod(self, node: LabNode) -> LabPod:
        """One more pod on `node`, under the first free number."""
        taken = {pod.name for pod in self.pods}
        number = next(n for n in range(1, len(taken) + 2) if f"{node.name}-pod{n}" not in taken)
        pod = pods.add_pod(node, f"{node.name}-pod{number}")
        self.pods.append(pod)
        self.save()
        return pod

    def remove_pod(self, pod: LabPod) -> None:
        """Remove one pod."""
        pods.remove_pod(self.node(pod.node), pod.name)
        self.pods.remove(pod)
        self.save()

    def restart_agent(self, node: LabNode, options: Iterable[str] = ()) -> None:
        """Start the agent of a node on which none runs, and wait until it is ready."""
        agents.start(node, self.nodes_file, options)
        agents.await_ready(node)

    def save(self) -> None:
        """Write the lab's file."""
        content = {
            "name": self.name,
            "nodes": [node.to_json() for node in self.nodes],
            "pods": [pod.to_json() for pod in self.pods],
        }
        files.replace(_file(self.name), json.dumps(content, indent=2))

    def status(self) -> dict[str, Any]:
        """What the file says, and the agents' pids as they are now: `vxlane lab status --json`."""
        return {
            "name": self.name,
            "nodes": [node.to_json() | {"agent_pid": agents.pid(node)} for node in self.nodes],
            "pods": [pod.to_json() for pod in self.pods],
        }


def load(name: str) -> Lab:
    """The lab of this name, from its file."""
    file = _file(check_name(name))
    try:
        content = parse_json(file.read_bytes())
        return Lab(
            name=content["name"],
            nodes=tuple(LabNode.from_json(node) for node in content["nodes"]),
            pods=[LabPod.from_json(pod) for pod in content["pods"]],
        )
    except FileNotFoundError:
        raise LabError(
            f'there is no lab "{name}"; make it with: vxlane lab up --name {name}'
        ) from None
    except (ValueError, KeyError, TypeError):
        raise LabError(
            f"{file} is damaged; remove the lab: vxlane lab down --name {name}"
        ) from None


def names() -> list[str]:
    """Every lab that has a file."""
    return sorted(file.parent.name for file in LABS.glob("*/lab.json"))


def up(
    name: str,
    *,
    nodes: int,
    pods_per_node: int,
    kernel_only: int,
    agent_options: Iterable[str] = (),
) -> Lab:
    """Make a lab in place of one of the same name. One that can't be completed is removed.

    LabError: a namespace that no lab made has such a name.
    """
    lab = Lab(check_name(name), plan_nodes(name, nodes, kernel_only=kernel_only))
    with contextlib.ExitStack() as turn:
        turn.enter_context(_one_at_a_time())
        _refuse_foreign(name)
        _remove(name)
        agents.remove_kept_logs(name)
        try:
            _make(lab, list(agent_options))
            for node in lab.nodes:
                pods.write_cni_files(node)
                for _ in range(pods_per_node):
                    lab.add_pod(node)
        except BaseException as error:  # Ctrl-C too
            # The lock is released and taken again: a command that Ctrl-C interrupted holds it to
            # its end.
            turn.close()
            with _one_at_a_time():
                _remove(name)  # and not the log that the error speaks of
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise LabError(f"{LABS} has no room for this lab; make some there") from None
            raise
    return lab


def _refuse_foreign(name: str) -> None:
    """LabError: a namespace is there, and no lab's directory, which is made first and goes last."""
    found = _namespaces(name)
    if found and not (LABS / name).exists():
        raise LabError(
            f'namespace "{found[0]}" is there, and no lab that made it: give another --name, or'
            f" remove all that has such names: vxlane lab down --name {name}"
        )


def _namespaces(name: str) -> list[str]:
    return [each for each in namespaces.existing() if is_namespace_of(name, each)]


def _make(lab: Lab, agent_options: list[str]) -> None:
    """Everything but the pods."""
    for directory in (LABS / lab.name, *(node.directory for node in lab.nodes)):
        # Whatever the umask: an agent refuses a directory that others may write to.
        directory.mkdir(mode=0o755)
    lab.save()
    underlay.make_switch(lab.name)
    for node in lab.nodes:
        underlay.make_node(lab.name, node)
    agents.write_nodes(lab.nodes_file, lab.nodes)
    for node in lab.accelerated():
        agents.start(node, lab.nodes_file, agent_options)
    for node in lab.nodes:
        if node.kernel_only:
            kernel_node.make_overlay(node, [peer for peer in lab.nodes if peer != node])
    for node in lab.accelerated():
        agents.await_ready(node)


def down(name: str) -> list[str]:
    """Remove everything with the lab's name: processes, namespaces, mounts, files.

    Returns in words what there was; empty: nothing has that name. The order lets the next `down`
    find what a killed one left: processes by their namespace, mounts by the directory, which goes
    last.
    """
    check_name(name)
    with _one_at_a_time():
        return [*_remove(name), *map(str, agents.remove_kept_logs(name))]


def _remove(name: str) -> list[str]:
    """See `down`."""
    found = _namespaces(name)
    removed = [f"{len(found)} namespace{'s' if len(found) > 1 else ''}"] if found else []
    namespaces.remove(found)
    directory = LABS / name
    for mount in _mounts_below(directory):
        namespaces.run(None, "umount", "--lazy", str(mount))
    if directory.exists():
        removed.append(str(directory))
    shutil.rmtree(directory, ignore_errors=True)
    return removed


def parts() -> list[str]:
    """The namespaces of all labs. No file is read: it may be damaged, or its lab going down."""
    labs = names()
    return [
        each for each in namespaces.existing() if any(is_namespace_of(lab, each) for lab in labs)
    ]


@contextlib.contextmanager
def held(name: str) -> Iterator[None]:
    """Keep a name for this process within the block: a command that removes its labs at its end
    would remove those of another. LabError: another process has it.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            # In Linux's abstract namespace (unix(7)): no file, and gone with a killed process.
            lock.bind(f"\0{LABS}/{check_name(name)}")
        except OSError:
            raise LabError(
                f'another command has labs of the name "{name}"; wait for its end, or give another'
                " --name"
            ) from None
        yield


def find(namespace: str) -> LabNode | None:
    """The node of `namespace`: its own, or that of one of its pods.

    None: it is a switch. LabError: no lab has it.
    """
    for lab in (load(name) for name in names() if is_namespace_of(name, namespace)):
        owners = {node.name: node for node in lab.nodes}
        owners |= {pod.name: owners[pod.node] for pod in lab.pods}
        if namespace in owners:
            return owners[namespace]
        if namespace == switch_name(lab.name):
            return None
    raise LabError(f'no lab has "{namespace}"; there are: {", ".join(parts()) or "no labs"}')


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold the lock under which labs are made and removed, one after the other.

    Commands that are run meanwhile inherit the lock. If the holder is killed, the next one waits
    for the command that the holder had started.
    """
    LABS.mkdir(parents=True, exist_ok=True)
    directory = os.open(LABS, os.O_RDONLY)
    try:
        os.set_inheritable(directory, True)  # noqa: FBT003 (os's own signature)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = sole.holder(LABS)
            who = f"process {pid}" if pid else "another process"
            # On standard error, as nobody set up a log.
            log.warning("%s makes or removes a lab: waiting for it", who)
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _file(name: str) -> Path:
    return LABS / name / "lab.json"


def _mounts_below(directory: Path) -> list[Path]:
    """Mount points under `directory`, the innermost first."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    mounts = [Path(line.split()[4]) for line in lines]
    return [mount for mount in reversed(mounts) if directory in mount.parents]
