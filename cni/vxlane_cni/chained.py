# SPDX-License-Identifier: Apache-2.0
"""The chained role: after the plugins that make a pod's network, have the pod accelerated.

Fails open: a pod that the agent can't or won't accelerate keeps the kernel path, which is
whole, and the runtime's log says why. Only `"required": true` turns that into an error.
The main role does the same after its delegate, so nothing here knows of flannel.
Imports agent, errors, request, result, veth and wire.
"""

from __future__ import annotations

import sys

from vxlane_cni import agent, veth
from vxlane_cni.errors import (
    INVALID_CONFIG,
    NOT_ATTACHED,
    TRY_AGAIN_LATER,
    UNAVAILABLE,
    AgentError,
    AgentRefusedError,
    CniError,
)
from vxlane_cni.request import Request, is_ifname, is_name, shown
from vxlane_cni.result import Result
from vxlane_cni.wire import JsonObject

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Callable

_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")


def add(request: Request) -> JsonObject:
    """Accelerate the pod that prevResult describes, and pass prevResult on."""
    verify(request)
    result = Result(request.conf.get("prevResult"))
    accelerate(request, result)
    return result.in_version(request.version)


def delete(request: Request) -> None:
    """Have the agent forget the interface. Succeeds whatever is gone already.

    Without an agent there is nothing to do: a veth's hooks go with the veth, and the next
    agent checks the pods it remembers against the kernel before it uses them.
    """
    try:
        agent.call(_state_dir(request), {"op": "remove", **_interface(request)})
    except AgentError as error:
        warn(request, f"not detached: {error}")


def check(request: Request) -> None:
    """CniError 100 when the interface is gone, or the agent could not make it what it should be.

    The agent puts right what it finds wrong, and takes a pod on that it did not know, before it
    answers: so the pod is attached then, or left to the kernel path. That is as it should be,
    unless it is required not to be.
    """
    result = Result(request.conf.get("prevResult"))
    question = _question("check", request, result)
    try:
        refusal = _put(request, result, question)
    except AgentRefusedError as error:
        raise CniError(NOT_ATTACHED, f"{request.ifname} is not as it should be: {error}") from None
    except (AgentError, LookupError) as error:
        refusal = str(error)
    _stay(request, refusal, NOT_ATTACHED)


def collect(request: Request) -> None:
    """GC: have the agent forget this network's interfaces that are no valid attachments."""
    valid = [list(pair) for pair in sorted(attachments(request))]
    try:
        agent.call(_state_dir(request), {"op": "gc", "network": request.network, "valid": valid})
    except AgentError as error:
        warn(request, f"garbage stays for now: {error}")


def status(request: Request) -> None:
    """CniError 50 when pods must be accelerated and there is nobody to do it."""
    if _is_required(request):
        probe(request, UNAVAILABLE)


def probe(request: Request, code: int) -> None:
    """CniError `code` when the agent does not answer."""
    try:
        agent.call(_state_dir(request), {"op": "status"})
    except AgentError as error:
        raise CniError(code, f"{error}; start `vxlane agent`") from None


def verify(request: Request) -> None:
    """CniError 7 for values that `accelerate` could not use, before anything is made."""
    _state_dir(request)
    _is_required(request)


def accelerate(request: Request, result: Result) -> None:
    """Have the agent attach the pod, or tell why it stays on the kernel path.

    What `verify` looks at has been verified.
    """
    question = _question("add", request, result)
    try:
        refusal = _put(request, result, question)
    except Exception as error:  # noqa: BLE001 (the pod has its network, whatever went wrong)
        refusal = str(error) or repr(error)
    _stay(request, refusal, TRY_AGAIN_LATER)


def attachments(request: Request) -> set[tuple[str, str]]:
    """The valid attachments that GC came with: (container id, interface name).

    Their absence is an error: read as "none is valid" it would undo every pod. null is none,
    though: so libcni writes the empty list of a network whose pods are all gone, as after a
    boot. libcni before the specification was done named the list cni.dev/attachments.
    """
    listed = next((request.conf[key] for key in _ATTACHMENTS if key in request.conf), ())
    entries = [] if listed is None else listed
    if not isinstance(entries, list):
        raise CniError(INVALID_CONFIG, f"GC needs the list {_ATTACHMENTS[0]}")
    pairs = set()
    for entry in entries:
        pair = (entry.get("containerID"), entry.get("ifname")) if isinstance(entry, dict) else ()
        match pair:
            case (str(container_id), str(ifname)) if is_name(container_id) and is_ifname(ifname):
                pairs.add((container_id, ifname))
            case _:
                raise CniError(INVALID_CONFIG, f"{shown(entry)} is no attachment")
    return pairs


def warn(request: Request, text: str) -> None:
    """Say it on stderr, which the runtimes pass on to their log."""
    who = request.pod or request.container_id or request.network
    try:
        sys.stderr.write(f"vxlane: {request.command} {who} {request.ifname}: {text}\n")
    except (AttributeError, OSError):
        pass  # stderr is closed, or a full disk: no reason to fail a pod


def _question(operation: str, request: Request, result: Result) -> JsonObject:
    """What the call itself says of a pod; CniError 7 for a result of another shape."""
    return {
        "op": operation,
        **_interface(request),
        "network": request.network,
        "netns": request.netns,
        "addresses": result.addresses(request.ifname),
        "name": request.pod,
    }


def _put(request: Request, result: Result, question: JsonObject) -> str:
    """Put `question` to the agent; why it left the pod to the kernel path, "" when it did not.

    CniError when the interface is gone, LookupError when it is none of ours, AgentError.
    """
    pod = veth.find(request.netns, request.ifname)
    if pod.host_ifname not in result.host_names():
        raise LookupError(f"the result does not name {pod.host_ifname}, the pod's veth")
    found = {"host_ifname": pod.host_ifname, "mac": pod.mac}
    answer = agent.call(_state_dir(request), {**question, **found})
    if answer.get("accelerated") is True:
        return ""
    return str(answer.get("reason") or "the agent does not say why")


def _stay(request: Request, refusal: str, code: int) -> None:
    """What it means that the pod stays on the kernel path; nothing when it doesn't."""
    if refusal and _is_required(request):
        raise CniError(code, f"{request.ifname} is not accelerated: {refusal}")
    if refusal:
        warn(request, f"stays on the kernel path: {refusal}")


def _is_required(request: Request) -> bool:
    return request.flag("required", default=False)


def _interface(request: Request) -> JsonObject:
    return {"container_id": request.container_id, "ifname": request.ifname}


def _state_dir(request: Request) -> str:
    return request.path("stateDir", agent.DEFAULT_STATE_DIR)


COMMANDS: dict[str, Callable[[Request], JsonObject | None]] = {
    "ADD": add,
    "DEL": delete,
    "CHECK": check,
    "GC": collect,
    "STATUS": status,
}
