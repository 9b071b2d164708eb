# SPDX-License-Identifier: Apache-2.0
"""One call of a runtime: its environment and its stdin, checked before they are used.

Names become file names and go to the agent. The specification's patterns are enforced here and in
no other place. Imports errors, system and wire.
"""

from __future__ import annotations

from vxlane_cni import system, wire
from vxlane_cni.errors import (
    INCOMPATIBLE_VERSION,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    INVALID_NETNS,
    UNDECODABLE,
    CniError,
)
from vxlane_cni.wire import JsonObject

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Mapping

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = VERSIONS[-1]

_SINCE = {"ADD": "0.3.0", "DEL": "0.3.0", "CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
_NEEDS = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
}
_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _ALPHANUMERIC | frozenset("_.-")
_LONGEST_NAME = 200  # bytes; with an interface's name behind it still a file name
_LONGEST_IFNAME = 15  # IFNAMSIZ without its NUL


class Request:
    """A call that passed its checks.

    command                ADD, DEL, CHECK, GC or STATUS
    container_id, ifname   the interface; "" for GC and STATUS, also if the environment has them
    netns                  path of the container's network namespace, "" when there is none
    pod                    "namespace/name", which Kubernetes' runtimes send; "" from others
    conf                   the plugin's configuration
    """

    __slots__ = ("command", "conf", "container_id", "environ", "ifname", "netns", "pod")

    def __init__(self, environ: Mapping[str, str], conf: JsonObject) -> None:
        self.environ = environ
        self.conf = conf
        self.command = _command(environ)
        is_about_one = "CNI_IFNAME" in _NEEDS[self.command]
        self.container_id = environ.get("CNI_CONTAINERID", "") if is_about_one else ""
        self.ifname = environ.get("CNI_IFNAME", "") if is_about_one else ""
        self.netns = environ.get("CNI_NETNS", "")
        self.pod = _pod(environ.get("CNI_ARGS", "")) if self.command in ("ADD", "CHECK") else ""
        if is_about_one:
            _check_container(self.container_id)
            _check_ifname(self.ifname)
        if self.command in ("ADD", "CHECK") and not _overridden(environ):
            _check_netns(self.netns)
        _check_version(self.version, self.command)
        if not is_name(self.network):
            raise CniError(INVALID_CONFIG, f"name {self.network!r} is no network name")

    @property
    def version(self) -> str:
        """cniVersion, which results and errors are written in; without one it is 0.1.0."""
        return self.text("cniVersion", "0.1.0")

    @property
    def network(self) -> str:
        """Name of the network, "" when the configuration has none."""
        return self.text("name", "")

    def text(self, key: str, default: str) -> str:
        """A string of the configuration."""
        value = self.conf.get(key, default)
        if not isinstance(value, str) or "\0" in value:
            raise CniError(INVALID_CONFIG, f"{key} must be a string, not {shown(value)}")
        return value

    def path(self, key: str, default: str) -> str:
        """An absolute path of the configuration."""
        value = self.text(key, default)
        if not value.startswith("/"):
            raise CniError(INVALID_CONFIG, f"{key} must be an absolute path, not {shown(value)}")
        try:
            system.encode(value)
        except UnicodeEncodeError:
            raise CniError(INVALID_CONFIG, f"{key} holds half a character: {value!a}") from None
        return value

    def mapping(self, key: str) -> JsonObject:
        """An object of the configuration, empty when it is missing or null."""
        value = self.conf.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise CniError(INVALID_CONFIG, f"{key} must be an object, not {shown(value)}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """A switch of the configuration."""
        value = self.conf.get(key, default)
        if not isinstance(value, bool):
            raise CniError(INVALID_CONFIG, f"{key} must be true or false, not {shown(value)}")
        return value


def decode(stdin: bytes) -> JsonObject:
    """The configuration on stdin; CniError 6 when it is no JSON object."""
    try:
        conf = wire.loads(stdin)
    except ValueError as error:
        raise CniError(UNDECODABLE, "stdin is not JSON", str(error)) from None
    if not isinstance(conf, dict):
        raise CniError(UNDECODABLE, f"stdin must be a JSON object, not {shown(conf)}")
    return conf


def is_name(text: str) -> bool:
    """Whether the specification allows `text` as a network's name or a container's id."""
    return 0 < len(text) <= _LONGEST_NAME and text[0] in _ALPHANUMERIC and _NAME.issuperset(text)


def is_ifname(text: str) -> bool:
    """Whether the kernel and the specification allow `text` as an interface's name."""
    plain = text.isprintable() and not any(c.isspace() or c in "/:" for c in text)
    return plain and 0 < len(system.encode(text)) <= _LONGEST_IFNAME and text not in (".", "..")


def _command(environ: Mapping[str, str]) -> str:
    """The command; CniError 4: it is unknown, or a variable that it needs is missing."""
    command = environ.get("CNI_COMMAND", "")
    if command not in _NEEDS:
        said = f"CNI_COMMAND={command!r} is unknown" if command else "CNI_COMMAND is not set"
        advice = f"a container runtime sets it to one of {', '.join(_NEEDS)} or VERSION"
        raise CniError(INVALID_ENVIRONMENT, said, advice)
    missing = [name for name in _NEEDS[command] if not environ.get(name)]
    if missing:
        raise CniError(INVALID_ENVIRONMENT, f"{command} needs {', '.join(missing)}")
    return command


def _pod(arguments: str) -> str:
    """The pod's name in CNI_ARGS ("K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;...")."""
    pairs = [pair.partition("=") for pair in arguments.split(";") if pair]
    if not all(separator for _, separator, _ in pairs):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS={arguments!r} is not KEY=VALUE;...")
    said = {key: value for key, _, value in pairs}
    names = (said.get("K8S_POD_NAMESPACE", ""), said.get("K8S_POD_NAME", ""))
    return "/".join(name for name in names if name)


def _check_container(container_id: str) -> None:
    if not is_name(container_id):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_CONTAINERID={container_id!r} is no container id")


def _check_ifname(ifname: str) -> None:
    if not is_ifname(ifname):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME={ifname!r} is no interface name")


def _overridden(environ: Mapping[str, str]) -> bool:
    """Whether the caller allows the plugin's own namespace, as the CNI plugins' tests do."""
    return environ.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "true")


def _check_netns(netns: str) -> None:
    """A container in the host's own namespace has no interface that is only its own."""
    try:
        same = system.is_same_file(netns, "/proc/self/ns/net")
    except OSError:
        return  # there is no such namespace; the role decides what that means
    if same:
        raise CniError(INVALID_NETNS, f"CNI_NETNS={netns} is the plugin's own network namespace")


def _check_version(version: str, command: str) -> None:
    if version not in VERSIONS:
        supported = ", ".join(VERSIONS)
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"cniVersion {version!r} is not supported",
            f"one of {supported} is",
        )
    if VERSIONS.index(version) < VERSIONS.index(_SINCE[command]):
        raise CniError(
            INCOMPATIBLE_VERSION, f"cniVersion {version} has no {command}, {_SINCE[command]} has"
        )


def shown(value: object) -> str:
    """A value for an error message, cut to 60 characters."""
    try:
        text = repr(value)
    except RecursionError:  # repr can't go as deep as the scanner
        return "something nested too deep to show"
    return text if len(text) <= 60 else f"{text[:60]}..."
