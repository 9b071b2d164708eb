# SPDX-License-Identifier: Apache-2.0
"""The main role: what flannel's plugin does, and then the acceleration.

A delegate makes the interface from the node's subnet.env: bridge with host-local, unless the
configuration says otherwise. Its configuration is noted before, so that DEL removes the same
interface after subnet.env or the configuration have changed.
Imports chained, delegate, errors, request, result, scratch, subnet and wire.
"""

from __future__ import annotations

from vxlane_cni import chained, delegate, scratch, subnet
from vxlane_cni.errors import (
    TRY_AGAIN_LATER,
    UNAVAILABLE,
    UNAVAILABLE_AND_LIMITED,
    UNKNOWN_CONTAINER,
    CniError,
    DelegateError,
)
from vxlane_cni.request import Request
from vxlane_cni.result import Result
from vxlane_cni.wire import JsonObject

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Callable

_REFUSED = "refused"  # beside what ADD noted: why it failed. No delegate knows the key


def add(request: Request) -> JsonObject:
    """Make the pod's interface and have it accelerated; the delegate's result.

    A bandwidth plugin that follows in the chain must find the interface without programs. Then
    `"accelerate": false` leaves the acceleration to a chained call at the end.
    """
    conf = subnet.delegate(request, subnet.read(request, TRY_AGAIN_LATER))
    accelerates = request.flag("accelerate", default=True)
    chained.verify(request)
    # Every DEL needs what the note names. Without that plugin no DEL could ever succeed.
    delegate.require(request, conf)
    scratch.save(request, conf)
    try:
        result = Result(delegate.run(request, conf))
    except DelegateError as error:
        scratch.save(request, {**conf, _REFUSED: error.message})
        raise
    if accelerates:
        chained.accelerate(request, result)
    return result.in_version(request.version)


def delete(request: Request) -> None:
    """Have the agent forget the pod, then remove its interface."""
    chained.delete(request)
    _unmake(request)


def _unmake(request: Request) -> None:
    """Have the delegate remove the interface.

    ADD's note is removed last. If the delegate fails, the runtime's next DEL still finds it.
    (flannel's plugin removes it in any case, and leaks the address.) But a delegate may refuse
    DEL with the same words as ADD: it can't read its configuration, so it has made nothing, and
    it would refuse for ever. Then DEL succeeds. A delegate that was killed both times
    has not refused: it may have made something.
    """
    conf = scratch.load(request)
    if conf is not None:
        try:
            delegate.run(request, conf)
        except DelegateError as error:
            if error.message != conf.get(_REFUSED):
                raise
    scratch.remove(request)


def check(request: Request) -> None:
    """Have the delegate check the interface, then the agent."""
    conf = scratch.load(request)
    if conf is None:
        raise CniError(UNKNOWN_CONTAINER, f"no ADD of {request.container_id} is known")
    previous = Result(request.conf.get("prevResult")).with_gateways()
    # The result is in the list's present version, which may not be that of the ADD.
    today = {"cniVersion": request.version, "prevResult": previous}
    delegate.run(request, {**conf, **today})
    if request.flag("accelerate", default=True):
        chained.check(request)


def collect(request: Request) -> None:
    """GC: remove every interface that has a note and is not valid, then have the delegate collect.

    The agent is asked once for all, because one that hangs would take five seconds each time.
    A failure for one interface does not stop the others. The first failure is raised at the end.
    """
    valid = chained.attachments(request)
    chained.collect(request)
    complaints = []
    for container_id, ifname in scratch.interfaces(request):
        if not scratch.is_claimed(container_id, ifname, valid):
            try:
                _unmake(_orphan(request, container_id, ifname))
            except CniError as error:
                complaints.append(error)
    try:
        lists = {key: value for key, value in request.conf.items() if key.startswith("cni.dev/")}
        conf = subnet.delegate(request, subnet.read(request, UNAVAILABLE))
        delegate.run(request, {**conf, **lists})
    except CniError as error:
        complaints.append(error)
    if complaints:
        raise complaints[0]


def status(request: Request) -> None:
    """CniError 50: no pod can be made. 51: pods can be made, but there is no agent."""
    conf = subnet.delegate(request, subnet.read(request, UNAVAILABLE))
    chained.probe(request, UNAVAILABLE_AND_LIMITED)
    delegate.run(request, conf)


def _orphan(request: Request, container_id: str, ifname: str) -> Request:
    """The DEL that the runtime did not send."""
    environ = {
        **request.environ,
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": container_id,
        "CNI_IFNAME": ifname,
        "CNI_NETNS": "",
    }
    return Request(environ, request.conf)


COMMANDS: dict[str, Callable[[Request], JsonObject | None]] = {
    "ADD": add,
    "DEL": delete,
    "CHECK": check,
    "GC": collect,
    "STATUS": status,
}
