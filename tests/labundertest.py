# SPDX-License-Identifier: Apache-2.0
"""A lab as tests see it: nodes and pods by their short names, and what the nodes count."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.errors import VxlaneError
from vxlane.lab import agents, namespaces
from vxlane.lab.agents import program
from vxlane.lab.lab import Lab
from vxlane.lab.plan import LabNode, LabPod
from vxlane.lab.waiting import wait_for
from vxlane.show import documents
from vxlane.show.node import call


class Moved(dict[tuple[str, str], int]):
    """(program, verdict) -> packets counted while a `with lab.verdicts(...)` stood open."""

    def __missing__(self, key: tuple[str, str]) -> int:
        return 0


class LabUnderTest:
    """A lab whose nodes and pods go by their short names: node1, node1-pod1."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def node(self, name: str) -> LabNode:
        """The node `name`."""
        return self.lab.node(f"{self.lab.name}-{name}")

    def pod(self, name: str) -> LabPod:
        """The pod `name`."""
        return self.lab.pod(f"{self.lab.name}-{name}")

    def address(self, name: str) -> str:
        """A pod's address, or a node's on the underlay."""
        return str((self.pod(name) if "-pod" in name else self.node(name)).address)

    def netns(self, name: str) -> str:
        """The namespace of a node, a pod or the switch."""
        return f"{self.lab.name}-{name}"

    def exec(self, name: str, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a node, a pod or the switch; see `namespaces.run`."""
        return namespaces.run(self.netns(name), *argv, **options)

    @contextlib.contextmanager
    def spawn(self, name: str, *argv: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """Run a command beside the block; it is killed at the end if it still runs."""
        command = namespaces.inside(self.netns(name), argv)
        with subprocess.Popen(command, text=True, **options) as process:
            try:
                yield process
            finally:
                process.kill()

    def vxlane(self, name: str, *arguments: str) -> Any:
        """What `vxlane ARGUMENTS --json` prints on a node, read."""
        env = {"VXLANE_STATE_DIR": str(self.node(name).directory)}
        done = self.exec(name, program("vxlane"), *arguments, "--json", env=env)
        return json.loads(done.stdout)

    def ask(self, name: str, **request: Any) -> dict[str, Any]:
        """Put a request to a node's agent: lab.ask("node1", op="flush").

        Where none answers the error has the end of its log, for the log goes with the lab.
        """
        try:
            return call(self.node(name).directory, request)
        except VxlaneError as error:
            error.add_note(agents.last_words(self.node(name)))
            raise

    def shares(self, name: str) -> Any:
        """What a node has bypassed of the overlay's packets since its start, as `stats` has it."""
        return self.vxlane(name, "stats")["bypassed"]

    @contextlib.contextmanager
    def maps(self, name: str) -> Iterator[Maps]:
        """The pinned maps of a node."""
        with Maps.open(pin_directory(self.node(name).directory)) as maps:
            yield maps

    @contextlib.contextmanager
    def verdicts(self, *names: str) -> Iterator[Moved]:
        """What the nodes count inside the block, filled in at its end."""
        moved = Moved()
        before = self._counters(names)
        yield moved
        for name, verdicts in documents.subtract(self._counters(names), before).items():
            moved.update(
                {
                    (name.label, verdict.label): count.packets
                    for verdict, count in verdicts.items()
                    if count.packets
                }
            )

    def _counters(self, names: tuple[str, ...]) -> documents.Counters:
        readings = []
        for name in names:
            with self.maps(name) as maps:
                readings.append(maps.counters())
        return documents.add(readings)

    def agent_pid(self, name: str) -> int | None:
        """The agent's process, None if it is dead."""
        return agents.pid(self.node(name))

    def kill_agent(self, name: str) -> None:
        """End the agent with SIGKILL and return when it is gone."""
        pid = self.agent_pid(name)
        assert pid, f"{name} runs no agent"
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.agent_pid(name) is None, f"end of {name}'s agent")

    def start_agent(self, name: str, *options: str) -> None:
        """Start the agent of a node where none runs, and wait until it serves."""
        self.lab.restart_agent(self.node(name), options)
