# SPDX-License-Identifier: Apache-2.0
"""The interface on the host that is the other end of a container's, read from the kernel.

The container's interface is read over rtnetlink with the id of its namespace, which is not entered:
setns is per thread, needs ctypes before Python 3.12, and must be undone. Written on struct, because
pyroute2's import takes ten times as long as this whole plugin. Imports errors and system.

Messages (linux/netlink.h, rtnetlink.h, if_link.h, net_namespace.h):

    nlmsghdr  {u32 len; u16 type; u16 flags; u32 seq; u32 pid}   then the family's header,
    rtattr    {u16 len; u16 type} and a value, padded to 4       any number of them
"""

from __future__ import annotations

import posix
from _socket import AF_NETLINK, AF_UNSPEC, SOCK_RAW, socket
from _struct import Struct

from vxlane_cni import system
from vxlane_cni.errors import INVALID_NETNS, NOT_ATTACHED, CniError

_NETLINK_ROUTE = 0
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_NLMSG_ERROR = 2
_RTM_GETLINK = 18
_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_NETNSA_NSID, _NETNSA_FD = 1, 3
_NOT_ASSIGNED = -1  # NETNSA_NSID_NOT_ASSIGNED
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 5, 18
_IFLA_LINK_NETNSID, _IFLA_TARGET_NETNSID = 37, 46
_IFLA_INFO_KIND = 1
_NLA_TYPE_MASK = 0x3FFF

_HEADER = Struct("=IHHII")
_IFINFOMSG = Struct("=BxHiII")  # family, type, index, flags, change
_RTGENMSG = Struct("=B3x")  # family
_ATTRIBUTE = Struct("=HH")
_S32 = Struct("=i")

Attributes = dict[int, bytes]


class Veth:
    """A container's interface and its other end.

    host_ifname   the end on the host
    mac           of the container's end, lower-case with colons
    """

    __slots__ = ("host_ifname", "mac")

    def __init__(self, host_ifname: str, mac: str) -> None:
        self.host_ifname = host_ifname
        self.mac = mac


def find(netns: str, ifname: str) -> Veth:
    """The veth with its container end at `ifname` in the namespace at the path `netns`.

    CniError 8: there is no such namespace. CniError 100: there is no such interface in it, or its
    other end is gone. LookupError, with the reason: it is no veth with its other end here.
    """
    try:
        # A namespace is a regular file. Any other file must not block, as a FIFO would.
        namespace = posix.open(netns, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError as error:
        raise CniError(INVALID_NETNS, f"CNI_NETNS={netns}: {error.strerror}") from None
    route = socket(AF_NETLINK, SOCK_RAW, _NETLINK_ROUTE)
    try:
        return _find(route, namespace, ifname)
    except OSError as error:
        said = f"{ifname} or its other end is not there: {error.strerror}"
        raise CniError(NOT_ATTACHED, said) from None
    finally:
        route.close()
        posix.close(namespace)


def _find(route: socket, namespace: int, ifname: str) -> Veth:
    """The two ends; each must point at the other."""
    nsid = _namespace_id(route, namespace)
    inside = _attribute(_IFLA_TARGET_NETNSID, _S32.pack(nsid))
    inside += _attribute(_IFLA_IFNAME, system.encode(ifname) + b"\0")
    index, pod_end = _link(route, 0, inside)
    kind = _attributes(pod_end.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
    if kind.rstrip(b"\0") != b"veth":
        raise LookupError(f"{ifname} is not a veth")
    _, host_end = _link(route, _number(pod_end, _IFLA_LINK), b"")
    # The index alone is no proof: it could be an interface of a third namespace.
    points_at = (_number(host_end, _IFLA_LINK), _number(host_end, _IFLA_LINK_NETNSID))
    if points_at != (index, nsid):
        raise LookupError(f"the other end of {ifname} is not in this network namespace")
    return Veth(
        system.decode(host_end[_IFLA_IFNAME].rstrip(b"\0")), pod_end[_IFLA_ADDRESS].hex(":")
    )


def _namespace_id(route: socket, namespace: int) -> int:
    """This namespace's id of the other one; the kernel assigns one if there is none."""
    named = _RTGENMSG.pack(AF_UNSPEC) + _attribute(_NETNSA_FD, _S32.pack(namespace))
    nsid = _known_id(route, named)
    if nsid == _NOT_ASSIGNED:
        try:
            _request(route, _RTM_NEWNSID, named + _attribute(_NETNSA_NSID, _S32.pack(-1)))
        except FileExistsError:
            pass  # another process had one assigned in between
        nsid = _known_id(route, named)
    return nsid


def _known_id(route: socket, named: bytes) -> int:
    answer = _request(route, _RTM_GETNSID, named)
    return _number(_attributes(answer[_RTGENMSG.size :]), _NETNSA_NSID)


def _link(route: socket, index: int, wanted: bytes) -> tuple[int, Attributes]:
    """Index and attributes of the link with that index, or that the attributes name."""
    answer = _request(route, _RTM_GETLINK, _IFINFOMSG.pack(AF_UNSPEC, 0, index, 0, 0) + wanted)
    found: int = _IFINFOMSG.unpack_from(answer)[2]
    return found, _attributes(answer[_IFINFOMSG.size :])


def _request(route: socket, kind: int, body: bytes) -> bytes:
    """Send a message and return the body of the answer, empty for a bare acknowledgement."""
    flags = _NLM_F_REQUEST | (_NLM_F_ACK if kind == _RTM_NEWNSID else 0)
    route.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body)
    answer = route.recv(65536)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:
        errno = -_S32.unpack_from(answer, _HEADER.size)[0]
        if errno:
            raise OSError(errno, posix.strerror(errno))
        return b""
    return answer[_HEADER.size :]


def _attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + padding


def _attributes(data: bytes) -> Attributes:
    """Attributes by type; the last of a type wins."""
    found: Attributes = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found[kind & _NLA_TYPE_MASK] = data[_ATTRIBUTE.size : length]
        data = data[(max(length, _ATTRIBUTE.size) + 3) & ~3 :]
    return found


def _number(attributes: Attributes, kind: int) -> int:
    """A 32-bit attribute; 0 (no interface, no peer): it is missing."""
    value = attributes.get(kind, b"")
    number: int = _S32.unpack(value)[0] if len(value) == _S32.size else 0
    return number
