# SPDX-License-Identifier: Apache-2.0
"""The pods of an agent that was not there when they were made.

What the runtime's files claim (`discover`) becomes an attachment only if the kernel shows the
same: a veth by one of the claimed names whose other end has the claimed name and MAC. A name that
was given to another veth since, or a pod that is gone, does not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vxlane.host.devices import Device, Devices
from vxlane.host.veths import FarEnd, far_end
from vxlane.pods.attachments import Attachment
from vxlane.pods.discover import Claim


def confirmed(claims: Iterable[Claim], devices: Devices) -> Iterator[Attachment]:
    """The claims that the kernel confirms, as the CNI plugin would have made them known."""
    for claim in claims:
        for veth in _veths(claim, devices):
            end = far_end(devices.socket, veth.index)
            if end and _is_claimed(end, claim):
                yield _attachment(claim, veth, end)


def _veths(claim: Claim, devices: Devices) -> Iterator[Device]:
    """The claim's interfaces on the host that are a veth: neither the bridge nor an ifb."""
    for name in claim.host_ifnames:
        device = devices.by_name(name)
        if device and device.kind == "veth":
            yield device


def _is_claimed(end: FarEnd, claim: Claim) -> bool:
    return end.name == claim.ifname and claim.mac in ("", end.mac)


def _attachment(claim: Claim, veth: Device, end: FarEnd) -> Attachment:
    return Attachment(
        container_id=claim.container_id,
        ifname=claim.ifname,
        netns=claim.netns,
        host_ifname=veth.name,
        mac=end.mac,
        addresses=tuple(str(address) for address in claim.addresses if address.version == 4),
        name=claim.name,
        network=claim.network,
    )
