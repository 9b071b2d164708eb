# SPDX-License-Identifier: Apache-2.0
"""This node as documents: from its state directory, its pinned maps and the agent's socket.

Works beside a living agent, and on what a dead one left. Owns the sentences for what isn't there.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vxlane.agent import sole
from vxlane.datapath.abi import Guard
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.datapath.records import PeerCount
from vxlane.errors import ContractError, KernelError, VxlaneError
from vxlane.pods.names import PodNames
from vxlane.show import documents
from vxlane.show.documents import Json
from vxlane.util.capabilities import missing
from vxlane.util.jsontext import parse_json
from vxlane.util.names import device_name

_ANSWER_SECONDS = 10.0
_CAPABILITIES = ("NET_ADMIN", "SYS_ADMIN")
"""What commands need of root: devices and maps."""


def open_maps(state: Path) -> Maps:
    """The pinned maps of this node's programs. VxlaneError: there are none."""
    pins = pin_directory(state)
    try:
        return Maps.open(pins)
    except FileNotFoundError:
        raise VxlaneError(f"no programs are pinned in {pins}; {_why_none(state)}") from None
    except KernelError as error:
        if lacks := missing(_CAPABILITIES):
            advice = f"this process lacks {lacks}"
            raise KernelError(error.operation, error.errno, advice) from None
        raise


def _why_none(state: Path) -> str:
    """Why nothing is pinned, as far as can be seen from here."""
    agent = sole.holder(state)
    with contextlib.suppress(OSError):
        here = Path("/proc/self/ns/mnt").readlink()
        if agent and Path(f"/proc/{agent}/ns/mnt").readlink() != here:
            place = f"mount {state} into its container with propagation Bidirectional"
            return f"agent {agent} has them in a mount namespace of its own: {place}"
    return f"agent {agent} may be about to" if agent else "no agent runs; start 'vxlane agent'"


def call(state: Path, request: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
    """One request to the agent, and its answer. VxlaneError: no agent answers, or it refused.

    `seconds`: how long to wait for it, 10 s if it is None.
    """
    seconds = _ANSWER_SECONDS if seconds is None else seconds
    path = state / "agent.sock"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = parse_json(connection.makefile("rb").readline())
    except (FileNotFoundError, ConnectionRefusedError):
        raise VxlaneError(f"no agent listens on {path}; start it: vxlane agent") from None
    except TimeoutError:
        what = f"the agent on {path} did not answer within {seconds:g} s"
        raise VxlaneError(f"{what}; it is overloaded or hangs, see its log") from None
    except OSError as error:
        raise KernelError(f"call the agent on {path}", error.errno or 0) from None
    except ValueError:
        raise VxlaneError(f"the agent on {path} ended before it answered; see its log") from None
    if not answer.get("ok"):
        raise VxlaneError(f"the agent refused {request['op']}: {answer.get('error', 'no reason')}")
    return answer


def status(state: Path) -> Json:
    """`vxlane status`: each part has its own `error` where it can't be read."""
    return {"agent": _agent(state), "programs": _programs(state)}


def _agent(state: Path) -> Json:
    """The agent's word. One that waits for its source has no socket yet, but a status file."""
    try:
        answer: Json = call(state, {"op": "status"})["status"]
    except VxlaneError as error:
        return _waiting(state) or {"error": str(error)}
    return answer


def _waiting(state: Path) -> Json | None:
    try:
        document: Json = parse_json((state / "agent.json").read_bytes())
        is_alive = sole.holder(state) is not None
        return document if is_alive and document["waiting_for"] else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # not what an agent wrote


def _programs(state: Path) -> Json:
    try:
        opened = open_maps(state)
    except (ContractError, KernelError) as error:
        # There are programs, and what they go by can't be read from here.
        return {"bypassing": None, "error": str(error)}
    except VxlaneError as error:
        return {"bypassing": False, "error": str(error)}
    with opened as maps:
        return documents.programs_document(
            maps.settings(),
            time.monotonic_ns(),
            peers=len(maps.peers()),
            pods=len(maps.pods()),
            flows=sum(1 for _ in maps.flows()),
        )


def peers(maps: Maps) -> list[Json]:
    """`vxlane peers`, by their CIDRs."""
    counts, nothing = maps.peer_counts(), PeerCount(0, 0, 0, 0)
    found = sorted(maps.peers().values(), key=lambda peer: peer.cidr.network_address.packed)
    return [
        documents.peer_document(peer, counts.get(peer.slot, nothing), device_name) for peer in found
    ]


def pods(maps: Maps, names: PodNames) -> list[Json]:
    """`vxlane pods`, by their addresses."""
    named = names.by_address()
    of_all = Guard.JUDGED if maps.settings().judged else Guard(0)
    guarded = (replace(pod, guard=pod.guard | of_all) for pod in maps.pods().values())
    found = sorted(guarded, key=lambda pod: pod.address.packed)
    return [documents.pod_document(pod, device_name, named) for pod in found]


def flows(maps: Maps, names: PodNames) -> list[Json]:
    """`vxlane flows`."""
    # Before the epoch and the clock, which would be older than what is learned while they are read.
    found = list(maps.flows())
    settings, now, named = maps.settings(), time.monotonic_ns(), names.by_address()
    return [documents.flow_document(flow, settings, now, named) for flow in found]


def stats(maps: Maps) -> Json:
    """`vxlane stats`."""
    return documents.stats_document(maps.counters(), peers(maps))
