# SPDX-License-Identifier: Apache-2.0
"""ADD's notes for DEL in the main role: the delegate's configuration.

    <dataDir>/<container id>            for eth0, as the flannel plugin has it
    <dataDir>/<container id>,<ifname>   for another interface of the same container

The flannel plugin keeps one file for each container, which two interfaces would share. No container
id has a comma. The files are flannel's own, in flannel's place, so either plugin can delete what
the other added. Imports errors, request and wire.
"""

from __future__ import annotations

import posix

from vxlane_cni import wire
from vxlane_cni.errors import IO_FAILURE, CniError
from vxlane_cni.request import Request, is_ifname, is_name
from vxlane_cni.wire import JsonObject

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Iterator

OWN_TYPE = "vxlane"

_DEFAULT_DATA_DIR = "/var/lib/cni/flannel"
_USUAL_IFNAME = "eth0"
_MAIN_KEYS = {"delegate", "ipam", "subnetFile", "dataDir"}
_MARK = "madeBy"  # a key that delegates ignore, because they do not know it


def save(request: Request, conf: JsonObject) -> None:
    """Note `conf`, before the delegate makes anything from it."""
    import os  # noqa: PLC0415 (makedirs; DEL in the chained role starts faster)

    noted = conf if says_main(request) else {**conf, _MARK: OWN_TYPE}
    path = _path(request)
    temporary = f"{_directory(request)}/.{os.path.basename(path)}"  # no id begins with a dot
    try:
        os.makedirs(_directory(request), mode=0o700, exist_ok=True)
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            rest = wire.dumps(noted)
            while rest:  # a full disk first takes a part, and then refuses
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, path)
    except OSError as error:
        raise CniError(IO_FAILURE, f"can't write {path}: {error.strerror}") from None


def load(request: Request) -> JsonObject | None:
    """The note of this interface; None: there is none that can be read.

    flannel's plugin names a note by the container only, for an interface of any name.
    """
    noted = _read(_path(request))
    if noted is None:
        other = _read(f"{_directory(request)}/{request.container_id}")
        if other is not None and other.get("name") == request.network and _MARK not in other:
            noted = other
    return noted


def remove(request: Request) -> None:
    """Remove the note, if there is one."""
    try:
        posix.unlink(_path(request))
    except FileNotFoundError:
        pass


def says_main(request: Request) -> bool:
    """Whether the configuration is of the main role, for any command.

    Its type is another plugin's, or it has a key that only the main role has.
    """
    other = request.text("type", "") != OWN_TYPE
    return other or not _MAIN_KEYS.isdisjoint(request.conf)


def is_own(request: Request) -> bool:
    """Whether ADD had the main role, which the configuration does not tell."""
    try:
        noted = _read(_path(request))
    except CniError:
        return False  # a note that can't be read could not be written
    return noted is not None and noted.get(_MARK) == OWN_TYPE


def interfaces(request: Request) -> Iterator[tuple[str, str]]:
    """(container id, interface name) of every note of the request's network.

    A file with another form of name is no note: a killed ADD may leave the beginning of one.
    """
    directory = _directory(request)
    try:
        names = sorted(posix.listdir(directory))
    except FileNotFoundError:
        return
    except OSError as error:
        raise CniError(IO_FAILURE, f"can't list {directory}: {error.strerror}") from None
    for name in names:
        container_id, _, ifname = name.partition(",")
        ifname = ifname or _USUAL_IFNAME
        if is_name(container_id) and is_ifname(ifname):
            noted = _read(f"{directory}/{name}")
            if noted is not None and noted.get("name") == request.network:
                yield container_id, ifname


def is_claimed(container_id: str, ifname: str, valid: set[tuple[str, str]]) -> bool:
    """Whether a note belongs to one of the valid attachments.

    The note of eth0 may be flannel's note of another interface of the container.
    """
    if ifname == _USUAL_IFNAME:
        return any(container_id == valid_id for valid_id, _ in valid)
    return (container_id, ifname) in valid


def _read(path: str) -> JsonObject | None:
    try:
        with open(path, "rb") as file:
            noted = wire.loads(file.read())
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return None
    except OSError as error:
        raise CniError(IO_FAILURE, f"can't read {path}: {error.strerror}") from None
    return noted if isinstance(noted, dict) else None


def _path(request: Request) -> str:
    suffix = "" if request.ifname == _USUAL_IFNAME else f",{request.ifname}"
    return f"{_directory(request)}/{request.container_id}{suffix}"


def _directory(request: Request) -> str:
    return request.path("dataDir", _DEFAULT_DATA_DIR)
