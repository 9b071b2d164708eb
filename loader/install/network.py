"""The configuration that makes runtimes call the plugin, in the form that suits them.

    drop-in    <conf dir>/<network>/99-vxlane.conf   libcni >= 1.3.0 appends it to flannel's list
    conflist   <conf dir>/00-vxlane.conflist         a copy of flannel's list and us; the first
                                                     list in order of names is the one in use

flannel's init container rewrites its own list whenever its pod starts, so that is never
edited. A network has one form or the other, or the plugin would be called twice.
Imports errors and files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from vxlane.loader.errors import ConfigError
from vxlane.loader.install import files

Json = dict[str, Any]

_TYPE = "vxlane"
_LIST = "00-vxlane.conflist"
_DROP_IN = "99-vxlane.conf"
_SUFFIXES = (".conf", ".conflist", ".json")
"""What runtimes read (containerd/go-cni, cri-o/ocicni)."""


class Form(Enum):
    """How a network is told of the plugin."""

    DROP_IN = "drop-in"
    CONFLIST = "conflist"


def install(directory: Path, network: str, *, form: Form, plugin: Json) -> list[str]:
    """Have `network` call `plugin`; what was changed, a line each."""
    drop_in, conflist = _drop_in(directory, network), directory / _LIST
    if form is Form.DROP_IN:
        # The new form first: in between, the pod that is called for twice is merely attached twice.
        changes = _write(drop_in, plugin) + _remove(conflist)
        return _wake(directory, changes)
    listed = _chained(_in_use(directory, network), plugin)
    changes = _write(conflist, listed)
    return changes + _remove_drop_in(drop_in)


def install_main(directory: Path, network: str, *, plugin: Json) -> list[str]:
    """Have the plugin make the pods' interfaces too; what was changed, a line each.

    It is in the list twice. bandwidth must find the interface before anything is hooked to
    it, so that the call which makes the interface leaves the attaching to the last.
    """
    maker: Json = {**plugin, "accelerate": False}
    maker["delegate"] = {"hairpinMode": True, "isDefaultGateway": True}
    others: list[Json] = [
        {"type": kind, "capabilities": {capability: True}}
        for kind, capability in (("portmap", "portMappings"), ("bandwidth", "bandwidth"))
    ]
    plugins = [maker, *others, plugin]
    listed = {"cniVersion": "1.0.0", "name": network, "plugins": plugins}
    changes = _write(directory / _LIST, listed)
    return changes + _remove_drop_in(_drop_in(directory, network))


def uninstall(directory: Path, network: str) -> list[str]:
    """Have nobody call the plugin; what was changed, a line each."""
    changes = _remove(directory / _LIST) + _remove_drop_in(_drop_in(directory, network))
    return _wake(directory, changes)


def _drop_in(directory: Path, network: str) -> Path:
    if Path(network).name != network:
        raise ConfigError(f'"{network}" is no name of a network')
    return directory / network / _DROP_IN


def _in_use(directory: Path, network: str) -> Json:
    """The list of flannel, which must be the one that runtimes would take without ours."""
    candidates = [file for file in _configurations(directory) if file.name != _LIST]
    if not candidates:
        raise ConfigError(
            f"{directory} holds no network to add to; start flannel first, or pass --role main"
        )
    first = candidates[0]
    listed = _read(first)
    if listed.get("name") != network:
        raise ConfigError(
            f'runtimes use {first}, which is network "{listed.get("name")}", not "{network}"; '
            "name the network of the pods with --network-name"
        )
    if not isinstance(listed.get("plugins"), list):
        raise ConfigError(f"{first} is a single plugin; make it a .conflist with a list of plugins")
    return listed


def _chained(listed: Json, plugin: Json) -> Json:
    """The list with the plugin at its end, once."""
    others = [entry for entry in listed["plugins"] if entry.get("type") != _TYPE]
    return {**listed, "plugins": [*others, plugin]}


def _configurations(directory: Path) -> Iterator[Path]:
    """The files that runtimes read, in their order."""
    if directory.is_dir():
        yield from sorted(file for file in directory.iterdir() if file.suffix in _SUFFIXES)


def _read(file: Path) -> Json:
    try:
        listed = json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON ({error}); mend it first") from None
    if not isinstance(listed, dict):
        raise ConfigError(f"{file} is not a JSON object; mend it first")
    return listed


def _write(file: Path, content: Json) -> list[str]:
    text = json.dumps(content, indent=2) + "\n"
    return [f"wrote {file}"] if files.replace(file, text.encode(), mode=0o644) else []


def _remove(file: Path) -> list[str]:
    return [f"removed {file}"] if files.remove(file) else []


def _remove_drop_in(file: Path) -> list[str]:
    """Remove the drop-in, and its directory unless there are others in it."""
    changes = _remove(file)
    try:
        file.parent.rmdir()
    except OSError:
        pass  # not there, or not empty
    return changes


def _wake(directory: Path, changes: list[str]) -> list[str]:
    """Have runtimes read the directory again: they watch it, but nothing below it.

    A removal counts for all of them; containerd ignores creations (cni_conf_syncer.go).
    """
    if changes and directory.is_dir():
        signal = directory / ".vxlane.new"
        signal.touch()
        signal.unlink()
    return changes
