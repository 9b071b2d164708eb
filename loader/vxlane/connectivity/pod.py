# SPDX-License-Identifier: Apache-2.0
"""The probe pod: a network namespace with an interface by the node's own CNI plugins.

No process runs in it; sockets are made there. Its note is a file that says how to remove it. It is
written before the pod is made, and locked as long as this process, or a plugin that it started,
lives. So the next run knows which notes a killed one left, and removes their pods.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any

from vxlane.errors import ToolError, VxlaneError
from vxlane.runtime import netns
from vxlane.runtime.chain import Chain, ContainerInterface
from vxlane.show.node import call
from vxlane.util.jsontext import parse_json

Json = dict[str, Any]

_PREFIX = "vxlane-test-"
_NO_AGENT = "/nonexistent"
_ROLES = ("vxlane", "flannel")
"""Types of entries that call vxlane's plugin; the second one's may be flannel's."""
_KUBERNETES = "K8S_POD_NAMESPACE=vxlane;K8S_POD_NAME"


@dataclass(frozen=True, slots=True)
class Network:
    """How this node's runtime makes pods."""

    conflist: Mapping[str, Any]
    plugins: Path

    def without_agent(self) -> Network:
        """The same for a pod of the kernel path: vxlane's plugin, in either role, finds no agent.

        flannel's own plugin overlooks the keys.
        """
        plugins = [
            {**plugin, "stateDir": _NO_AGENT, "required": False}
            if plugin.get("type") in _ROLES
            else plugin
            for plugin in self.conflist["plugins"]
        ]
        return Network({**self.conflist, "plugins": plugins}, self.plugins)


@dataclass(frozen=True, slots=True)
class ProbePod:
    """A pod that is there."""

    netns: Path
    """The file that holds its network namespace."""
    address: IPv4Address


class ProbePods:
    """The probe pods of this node, by their notes in `directory`, which is there while they are."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def remove_leftovers(self) -> list[str]:
        """Remove the pods of runs that were killed. A sentence for each that could not be.

        Their notes stay, and the next run tries again.
        """
        with self._turn():
            return [said for file in self._directory.glob("*.json") if (said := self._clear(file))]

    @contextlib.contextmanager
    def made(self, network: Network) -> Iterator[ProbePod]:
        """One pod within the block. ToolError: a plugin failed, and nothing is left."""
        chain = self._chain(network.conflist, network.plugins)
        chain.need_plugins()
        file = self._directory / f"{_PREFIX}{secrets.token_hex(4)}.json"
        with self._turn():
            note = _locked(file)
        try:
            content = {"conflist": network.conflist, "plugins": str(network.plugins)}
            os.write(note, json.dumps(content).encode())
            interface = _interface(file)
            try:
                netns.make(interface.netns)
                yield ProbePod(interface.netns, _address(chain.add(interface)))
            finally:
                _remove(chain, interface)
                with self._turn():  # where it could not be removed, the next run tries again
                    file.unlink()
        finally:
            os.close(note)

    def _clear(self, file: Path) -> str:
        """Remove the pod of a note, unless its run lives; why that failed, "" if it did not."""
        try:
            with file.open("rb") as note:
                fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if text := note.read():
                    content = parse_json(text)
                    chain = self._chain(content["conflist"], Path(content["plugins"]))
                    _remove(chain, _interface(file))
                file.unlink()
        except (BlockingIOError, FileNotFoundError):
            return ""  # its run lives, or has just ended
        except (VxlaneError, ValueError, KeyError, TypeError) as error:
            return f"the probe pod {file.stem} of a killed run can't be removed: {error}"
        return ""

    def _chain(self, conflist: Mapping[str, Any], plugins: Path) -> Chain:
        return Chain(conflist, namespace=None, path=(plugins,), cache=self._directory / "cni")

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Only one process at a time: a new note has no lock for a moment. The last one tidies."""
        turn = self._locked_directory()
        try:
            yield
            if not any(self._directory.glob("*.json")):
                shutil.rmtree(self._directory)
        finally:
            os.close(turn)

    def _locked_directory(self) -> int:
        """A descriptor of the directory; while it is waited for, another process may remove it."""
        while True:
            self._directory.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                turn = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(turn, fcntl.LOCK_EX)
                if self._directory.exists() and self._directory.samefile(f"/proc/self/fd/{turn}"):
                    return turn
                os.close(turn)


def _locked(file: Path) -> int:
    """A descriptor of the new note, which CNI plugins inherit."""
    note = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(note, fcntl.LOCK_EX)
    os.set_inheritable(note, True)  # noqa: FBT003 (the function's one argument)
    return note


def _remove(chain: Chain, interface: ContainerInterface) -> None:
    """Undo a pod, whole or half made."""
    try:
        chain.delete(interface)
    finally:
        # The interface goes with it, even where a plugin fails.
        netns.remove(interface.netns)


def _interface(note: Path) -> ContainerInterface:
    """The pod of a note. Its namespace is beside the note, so a lab's goes with the lab."""
    return ContainerInterface(
        container_id=note.stem,
        netns=note.with_suffix(".netns"),
        args=f"IgnoreUnknown=1;{_KUBERNETES}={note.stem}",
    )


def _address(result: Json) -> IPv4Address:
    """The pod's IPv4 address. ToolError: the chain gave it none."""
    for given in result.get("ips") or []:
        address = ip_interface(given["address"]).ip
        if isinstance(address, IPv4Address):
            return address
    raise ToolError("the node's CNI plugins gave the probe pod no IPv4 address")


def why_not_added(state: Path) -> str:
    """Why the agent does not know of a probe pod, and the next step."""
    try:
        call(state, {"op": "status"})
    except VxlaneError as error:
        return f"no agent was told of the pod: {error}"
    return "the node's network does not call vxlane for its pods: vxlane install"
