# SPDX-License-Identifier: Apache-2.0
"""The chained role: after the plugins that make a pod's network, have the pod accelerated.

It fails open: a pod that is not accelerated keeps the kernel path, which is complete, and the
runtime's log says why. Only `"required": true` makes that an error. The main role does the same
after its delegate, so this module does not know flannel.
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
    """Have the agent forget the interface. Succeeds also when all is gone.

    Without an agent nothing needs to be done: a veth's programs go with the veth, and the next
    agent compares the pods in its state directory with the kernel before it uses them.
    """
    try:
        agent.call(_state_dir(request), {"op": "remove", **_interface(request)})
    except AgentError as error:
        warn(request, f"the agent still has it: {error}")


def check(request: Request) -> None:
    """CniError 100: the interface is gone, or the agent could not repair it.

    Before it answers the agent repairs what is wrong, and adds a pod that it did not know. After
    that the pod is accelerated, or left to the kernel path. The latter is an error only with
    `required`.
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
    """GC: have the agent forget this network's interfaces that are not valid any more."""
    valid = [list(pair) for pair in sorted(attachments(request))]
    try:
        agent.call(_state_dir(request), {"op": "gc", "network": request.network, "valid": valid})
    except AgentError as error:
        warn(request, f"garbage stays for now: {error}")


def status(request: Request) -> None:
    """CniError 50: pods must be accelerated, and no agent answers."""
    if _is_required(request):
        probe(request, UNAVAILABLE)


def probe(request: Request, code: int) -> None:
    """CniError `code`: the agent does not answer."""
    try:
        agent.call(_state_dir(request), {"op": "status"})
    except AgentError as error:
        raise CniError(code, f"{error}; start `vxlane agent`") from None


def verify(request: Request) -> None:
    """CniError 7 for values that `accelerate` could not use, before anything is made."""
    _state_dir(request)
    _is_required(request)


def accelerate(request: Request, result: Result) -> None:
    """Have the agent accelerate the pod, or report why it stays on the kernel path.

    `verify` has been called before.
    """
    question = _question("add", request, result)
    try:
        refusal = _put(request, result, question)
    except Exception as error:  # noqa: BLE001 (the pod has its network in any case)
        refusal = str(error) or repr(error)
    _stay(request, refusal, TRY_AGAIN_LATER)


def attachments(request: Request) -> set[tuple[str, str]]:
    """The valid attachments in a GC: (container id, interface name).

    A missing list is an error: as an empty list it would remove every pod. null is an empty list:
    libcni writes it for a network whose pods are all gone, for example after a boot. Early
    versions of libcni named the list cni.dev/attachments.
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
    """Write a line to stderr, which runtimes copy to their log."""
    who = request.pod or request.container_id or request.network
    try:
        sys.stderr.write(f"vxlane: {request.command} {who} {request.ifname}: {text}\n")
    except (AttributeError, OSError):
        pass  # stderr is closed, or its disk is full; a pod must not fail for that


def _question(operation: str, request: Request, result: Result) -> JsonObject:
    """The request with what the call tells about the pod; CniError 7 for another form of result."""
    return {
        "op": operation,
        **_interface(request),
        "network": request.network,
        "netns": request.netns,
        "addresses": result.addresses(request.ifname),
        "name": request.pod,
    }


def _put(request: Request, result: Result, question: JsonObject) -> str:
    """Send `question` to the agent. Returns why the pod stays on the kernel path; "": it does not.

    CniError: the interface is gone. LookupError: it is not one of ours. AgentError.
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
    """Report that the pod stays on the kernel path, if there is a `refusal`."""
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
