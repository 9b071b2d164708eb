# SPDX-License-Identifier: Apache-2.0
"""This node's answers: opens what is pinned, asks the agent if one answers, and says what lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vxlane.datapath.programs import Constants, loaded_constants
from vxlane.errors import VxlaneError
from vxlane.host import sysctls
from vxlane.overlay.node_cache import saved_nodes
from vxlane.pods.names import read_pod_names
from vxlane.show.node import call, open_maps
from vxlane.why.answer import Json, answers
from vxlane.why.ends import PROTOCOLS, Question, parse_end
from vxlane.why.kernel import Kernel
from vxlane.why.reader import Reader
from vxlane.why.reasons import Agent

_PATIENCE = 0.25
"""Seconds that the agent has to answer: nothing but names of mechanisms depends on it."""


def why(state: Path, source: str, destination: str, protocol: str | None) -> Json:
    """`vxlane why`. ConfigError: an end is none, or neither is on this node."""
    with opened(state) as reader:
        find = partial(read_pod_names(state).find, pods=reader.pods)
        question = Question(
            parse_end(source, find),
            parse_end(destination, find),
            PROTOCOLS[protocol] if protocol else None,
        )
        agent = ask(state)
        return {"flows": answers(reader, question, agent), "notes": notes(agent)}


@contextlib.contextmanager
def opened(state: Path) -> Iterator[Reader]:
    """A reader of this node's facts. VxlaneError: nothing is pinned."""
    port = (loaded_constants(state) or Constants()).port
    with open_maps(state) as maps, contextlib.closing(Kernel(port)) as kernel:
        own, _ = saved_nodes(state)
        names = read_pod_names(state).by_address()
        yield Reader(maps, kernel, own.pod_cidr if own else None, names)


def ask(state: Path) -> Agent:
    """What the agent says, if one answers at once."""
    try:
        status = call(state, {"op": "status"}, _PATIENCE)["status"]
    except VxlaneError as error:
        return Agent(error=str(error))
    return Agent(
        mechanisms=status.get("mechanisms", ()), rules_unread=bool(status.get("rules_unread"))
    )


def notes(agent: Agent) -> list[str]:
    """What the answer lacks, and what is wrong on the whole node."""
    told = []
    if agent.error:
        told.append(f"{agent.error}; this is what the programs' maps say")
    told += [
        f"sysctl {name} is {value}, and no bypass is safe with it; the agent sets it to 1"
        for name, value in sysctls.differing(sysctls.CONNTRACK).items()
    ]
    return told


def pods(state: Path) -> list[str]:
    """What this node's pods may be called, and their addresses."""
    with opened(state) as reader:
        return [*read_pod_names(state).words(reader.pods), *sorted(map(str, reader.pods))]
