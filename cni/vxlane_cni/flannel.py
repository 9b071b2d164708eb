# SPDX-License-Identifier: Apache-2.0
"""The main role: what flannel's plugin does, and then the acceleration.

The interface itself is made by a delegate (bridge with host-local, unless the configuration
says otherwise) from the node's subnet.env. What it was made from is noted down first, so
that DEL unmakes the same thing after subnet.env or the configuration have changed.
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

    Where the bandwidth plugin follows in the chain it must find the interface untouched: then
    `"accelerate": false` leaves that to a chained call at the end.
    """
    conf = subnet.delegate(request, subnet.read(request, TRY_AGAIN_LATER))
    accelerates = request.flag("accelerate", default=True)
    chained.verify(request)
    # From the note on every DEL needs them: a name that is no plugin's could never be deleted.
    delegate.require(request, conf)
    scratch.save(request, conf)
    try:
        result = Result(delegate.run(request, conf))
    except CniError as error:
        scratch.save(request, {**conf, _REFUSED: error.message})
        raise
    if accelerates:
        chained.accelerate(request, result)
    return result.in_version(request.version)


def delete(request: Request) -> None:
    """Take the pod out of the agent's hands, then unmake its interface.

    What ADD noted down goes last: should the delegate fail, the runtime's next DEL still
    knows what to do. (flannel's plugin forgets it either way and leaks the address.) But a
    delegate that refuses to DEL in the words in which it refused to ADD can't read what it is
    given: it has made nothing, and would refuse for ever.
    """
    chained.delete(request)
    conf = scratch.load(request)
    if conf is not None:
        try:
            delegate.run(request, conf)
        except CniError as error:
            if error.message != conf.get(_REFUSED):
                raise
    scratch.remove(request)


def check(request: Request) -> None:
    """What the delegate finds wrong with the interface, then what the agent does."""
    conf = scratch.load(request)
    if conf is None:
        raise CniError(UNKNOWN_CONTAINER, f"no ADD of {request.container_id} is known")
    previous = Result(request.conf.get("prevResult")).with_gateways()
    # The result is in the list's version of today, which may not be that of the ADD.
    today = {"cniVersion": request.version, "prevResult": previous}
    delegate.run(request, {**conf, **today})
    if request.flag("accelerate", default=True):
        chained.check(request)


def collect(request: Request) -> None:
    """GC: DEL what ADD noted down and no attachment claims, then have the delegate collect.

    An interface that can't be unmade does not keep the others; the first complaint is raised
    when all is done.
    """
    valid = chained.attachments(request)
    chained.collect(request)
    complaints = []
    for container_id, ifname in scratch.interfaces(request):
        if not scratch.is_claimed(container_id, ifname, valid):
            try:
                delete(_orphan(request, container_id, ifname))
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
    """CniError 50 when no pod can be made; 51 when those there are go without an agent too."""
    conf = subnet.delegate(request, subnet.read(request, UNAVAILABLE))
    chained.probe(request, UNAVAILABLE_AND_LIMITED)
    delegate.run(request, conf)


def _orphan(request: Request, container_id: str, ifname: str) -> Request:
    """The DEL that a runtime lost."""
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
