# SPDX-License-Identifier: Apache-2.0
"""The configuration that makes runtimes call the plugin, in the form that suits them.

    drop-in    <conf dir>/<network>/99-vxlane.conf   libcni >= 1.3.0 appends it to flannel's list
    conflist   <conf dir>/00-vxlane.conflist         a copy of flannel's list and us; the first
                                                     list in order of names is the one in use

flannel's init container rewrites its own list whenever its pod starts, so vxlane never edits that
list. A network has one form only, or the plugin would be called twice. Service meshes (Istio,
Linkerd) put their plugin at the end of the first list, which may be ours, and watch that it is
there: what stands behind our plugin stays. Imports errors and util.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from vxlane.errors import ConfigError, VersionError
from vxlane.util import files
from vxlane.util.jsontext import parse_json

Json = dict[str, Any]

TYPE = "vxlane"
"""The plugin's name: its type in a network's list, and its executable."""
USUAL = "cbr0"
"""What flannel's manifests and k3s call the network of pods."""
SPOKEN = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""The versions of a list that the plugin speaks."""
_LIST = "00-vxlane.conflist"
_DROP_IN = "99-vxlane.conf"
_NO_DROP_INS = "loadOnlyInlinedPlugins"
_MOVED = "vxlane.io/moved"
"""In our list: the types that stand behind our plugin, and in flannel's list too."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")  # the specification's, and a file's
_SUFFIXES = (".conf", ".conflist", ".json")
"""What runtimes read (containerd/go-cni, cri-o/ocicni)."""


class Role(Enum):
    """What the plugin does for a pod."""

    CHAINED = "chained"
    """It follows flannel's plugin."""
    MAIN = "main"
    """It takes the place of flannel's plugin."""


class Form(Enum):
    """How runtimes learn that a network has the plugin."""

    DROP_IN = "drop-in"
    CONFLIST = "conflist"


Plan = dict[Path, Json | None]
"""The wanted content of files, None for one to be removed; in the order of writing."""


def chained(directory: Path, network: str, *, form: Form, plugin: Json) -> Plan:
    """Have `network` call `plugin` last."""
    drop_in, conflist = _drop_in(directory, network), directory / _LIST
    if form is Form.DROP_IN:
        listed = _named(directory, network)
        if listed.get(_NO_DROP_INS):
            raise ConfigError(
                f'network "{network}" says {_NO_DROP_INS}: no drop-in is read; pass --form conflist'
            )
        _check_version(listed)
        if not listed and conflist.exists():
            raise ConfigError(
                f"without {conflist} there would be no network; start flannel first, or pass "
                "--role main"
            )
        # The new form first: a pod that is made in between is only accelerated twice.
        return {drop_in: plugin, conflist: None}
    file, listed = _in_use(directory, network)
    _check_version(listed)
    added, taken = _changed_by_others(conflist)
    rest = _without(listed, taken)
    # flannel's list first: what has moved is known by ours.
    return {
        **({file: rest} if rest != listed else {}),
        conflist: _with(rest, plugin, added),
        drop_in: None,
    }


def main(directory: Path, network: str, *, plugin: Json) -> Plan:
    """Have the plugin make the pods' interfaces too.

    It is in the list twice. bandwidth must find an interface without programs, so the first call
    makes the interface and the last one has it accelerated.
    """
    maker: Json = {**plugin, "accelerate": False}
    maker["delegate"] = {"hairpinMode": True, "isDefaultGateway": True}
    others: list[Json] = [
        {"type": kind, "capabilities": {capability: True}}
        for kind, capability in (("portmap", "portMappings"), ("bandwidth", "bandwidth"))
    ]
    conflist = directory / _LIST
    added, _ = _changed_by_others(conflist)
    plugins = [maker, *others, plugin, *added]
    listed = {"cniVersion": "1.0.0", "name": network, "plugins": plugins}
    return {conflist: listed, _drop_in(directory, network): None}


def absent(directory: Path, network: str) -> Plan:
    """Have no runtime call the plugin."""
    return {directory / _LIST: None, _drop_in(directory, network): None}


def takes_drop_ins(directory: Path, network: str) -> bool:
    """Whether the network's list, if there is one, lets runtimes read drop-ins."""
    return not _named(directory, network).get(_NO_DROP_INS)


def lists(directory: Path, network: str) -> bool:
    """Whether a list of `network` is among the files that can be read, be it ours."""
    for file in _lists(directory):
        try:
            if _read(file).get("name") == network:
                return True
        except ConfigError:
            continue  # half written, or another one's fault
    return False


def calls_us(directory: Path, network: str) -> bool:
    """Whether a file that can be read has our plugin in `network`: a list, or a drop-in to it."""
    drop_in = _drop_in(directory, network)
    if drop_in.exists():
        return is_there(directory, network)
    for file in _lists(directory):
        try:
            listed = _read(file)
            plugins = listed["plugins"] if listed.get("name") == network else ()
            if any(plugin["type"] == TYPE for plugin in plugins):
                return True
        except (ConfigError, LookupError, TypeError):
            continue  # no list, or half written
    return False


def is_there(directory: Path, network: str) -> bool:
    """Whether runtimes find a list of `network`, which a drop-in can be appended to."""
    return bool(_named(directory, network))


def in_force(directory: Path, network: str, *, drop_ins: bool) -> Json:
    """The list by which runtimes make pods of `network`, with its drop-ins if they read any.

    ConfigError: there is none, or it is not a list of plugins.
    """
    for file in _lists(directory):
        listed = _read(file)
        if listed.get("name") != network:
            continue
        if not isinstance(listed.get("plugins"), list) or "cniVersion" not in listed:
            raise ConfigError(f"{file} is no list of plugins with a cniVersion; mend it first")
        added = directory / network
        appended = sorted(added.glob("*.conf")) if drop_ins and not listed.get(_NO_DROP_INS) else []
        return {**listed, "plugins": [*listed["plugins"], *map(_read, appended)]}
    raise ConfigError(
        f'no list in {directory} is network "{network}"; name the directory with --cni-conf-dir '
        "and the network of the pods with --network-name"
    )


def apply(directory: Path, plan: Plan) -> list[str]:
    """Write and remove the files. A line for each change."""
    changes = []
    for file, content in plan.items():
        if content is None:
            changes += [f"removed {file}"] if files.remove(file) else []
            if file.parent != directory:
                _remove_if_empty(file.parent)
        elif not _says(file, content):
            text = json.dumps(content, indent=2) + "\n"
            mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
            changes += [f"wrote {file}"] if files.write_if_changed(file, text, mode=mode) else []
    if changes and directory.is_dir():
        _wake(directory)
    return changes


def _drop_in(directory: Path, network: str) -> Path:
    if not _NAME.fullmatch(network):
        raise ConfigError(f'"{network}" is no name of a network')
    return directory / network / _DROP_IN


def _in_use(directory: Path, network: str) -> tuple[Path, Json]:
    """The list of flannel, which must be the first one in use without ours, and its file."""
    first = next(_others(directory), None)
    if first is None:
        raise ConfigError(
            f"{directory} holds no network to add to; start flannel first, or pass --role main"
        )
    listed = _read(first)
    if listed.get("name") != network:
        raise ConfigError(
            f'runtimes use {first}, which is network "{listed.get("name")}", not "{network}"; '
            "name the network of the pods with --network-name"
        )
    if not isinstance(listed.get("plugins"), list):
        raise ConfigError(f"{first} is a single plugin; make it a .conflist with a list of plugins")
    if not all(isinstance(entry, dict) for entry in listed["plugins"]):
        raise ConfigError(f"{first} lists a plugin that is no JSON object; mend it first")
    return first, listed


def _named(directory: Path, network: str) -> Json:
    """The list of flannel, to which a drop-in is appended; empty: there is none yet.

    It need not be the first one: multus has its own name, comes first, and reads flannel's list.
    """
    others = [_read(file) for file in _others(directory)]
    if not others:
        return {}
    for listed in others:
        if listed.get("name") == network:
            return listed
    raise ConfigError(
        f'no list in {directory} is network "{network}"; name the network of the pods with '
        "--network-name"
    )


def _check_version(listed: Json) -> None:
    """VersionError: our plugin would refuse every pod of that list. An empty one is none yet.

    A list may have several versions for the runtime to choose from (cniVersions, since 1.1.0).
    """
    version, more = listed.get("cniVersion") or "none", listed.get("cniVersions")
    versions = [version, *(more if isinstance(more, list) else ())]
    if listed and not any(each in SPOKEN for each in versions):
        raise VersionError(
            f'network "{listed["name"]}" has cniVersion {version}, which the plugin does not '
            "speak; write 1.0.0 into it, for flannel in its ConfigMap kube-flannel-cfg"
        )


def _with(listed: Json, plugin: Json, added: list[Json]) -> Json:
    """The list with the plugin once, behind its own plugins, and with what others added behind."""
    last = [entry["type"] for entry in added]
    moved = [kind for kind in last if _without(listed, [kind]) != listed]
    others = _without(listed, [TYPE, *last])["plugins"]
    made: Json = {**listed, "plugins": [*others, plugin, *added]}
    return {**made, _MOVED: moved} if moved else made


def _without(listed: Json, kinds: Collection[str]) -> Json:
    """The list without plugins of these types."""
    return {**listed, "plugins": [p for p in listed["plugins"] if p.get("type") not in kinds]}


def _changed_by_others(conflist: Path) -> tuple[list[Json], list[str]]:
    """What others have done to our own list: the plugins that they have put behind ours, and the
    types that had moved there and were taken away again.
    """
    try:
        listed = _read(conflist)
        plugins = listed["plugins"]
        types = [entry["type"] for entry in plugins]
        behind = len(types) - types[::-1].index(TYPE)
        taken = [kind for kind in listed.get(_MOVED, ()) if kind not in types]
    except (ConfigError, LookupError, TypeError, ValueError):
        return [], []  # it is not there, or not as it was written
    return plugins[behind:], taken


def _says(file: Path, content: Json) -> bool:
    """Whether a file has this content, whoever has formatted it."""
    try:
        return _read(file) == content
    except ConfigError:
        return False


def _others(directory: Path) -> Iterator[Path]:
    """The files that runtimes read, without ours, in their order."""
    return (file for file in _lists(directory) if file.name != _LIST)


def _lists(directory: Path) -> list[Path]:
    """The files that runtimes read, in their order."""
    files_there = sorted(directory.iterdir()) if directory.is_dir() else []
    return [file for file in files_there if file.suffix in _SUFFIXES]


def _read(file: Path) -> Json:
    try:
        listed = parse_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror}; mend it first") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON ({error}); mend it first") from None
    if not isinstance(listed, dict):
        raise ConfigError(f"{file} is not a JSON object; mend it first")
    return listed


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        pass  # it is not there, or it has drop-ins of others


def _wake(directory: Path) -> None:
    """Have runtimes read the directory again: they watch the directory only, not those below it.

    All of them notice a removal; containerd ignores creations (cni_conf_syncer.go).
    """
    signal = directory / ".vxlane.new"
    signal.touch()
    signal.unlink()
