# SPDX-License-Identifier: Apache-2.0
"""Where this node's container runtime has its CNI files: found, not asked.

The runtime that runs says which configuration it reads: k3s, RKE2 and MicroK8s start a containerd
of their own with `--config FILE`, and may have any data directory. Where none runs, the first
configuration that is there counts. What it does not say has the runtime's default:

    containerd 1.x   plugins.cri.cni, plugins."io.containerd.grpc.v1.cri".cni: conf_dir, bin_dir
    containerd 2.x   plugins."io.containerd.cri.v1.runtime".cni: conf_dir, bin_dirs (or bin_dir)
    CRI-O            crio.network: network_dir, plugin_dirs; crio.conf, then crio.conf.d/* over it

k3s 1.31 and later have their plugins in data/cni; before, in data/<hash>/bin, which moves at each
upgrade. Their containerd's configuration has the path that holds. Imports errors only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vxlane.errors import ConfigError
from vxlane.runtime import network

Table = dict[str, Any]

if sys.version_info >= (3, 11):
    from tomllib import loads
else:

    def loads(_text: str) -> Table:
        """Nothing: Python 3.10 has no tomllib, so the usual places are taken."""
        return {}


ROOT = Path("/")
ROOT_VARIABLE = "VXLANE_HOST_ROOT"
PLUGINS_VARIABLE, NETWORKS_VARIABLE = "VXLANE_CNI_BIN_DIR", "VXLANE_CNI_CONF_DIR"
CACHE_VARIABLE = "VXLANE_CNI_CACHE_DIR"
CACHE = Path("/var/lib/cni")
"""libcni's, and host-local's. No runtime's configuration names another."""
CONF, BIN = Path("/etc/cni/net.d"), Path("/opt/cni/bin")
"""The defaults of containerd and CRI-O, which kubeadm and RKE2 leave as they are."""
_K3S = Path("/var/lib/rancher/k3s")
_CONTAINERD = Path("/etc/containerd/config.toml")
_CONTAINERDS = (
    _K3S / "agent/etc/containerd/config.toml",
    Path("/var/lib/rancher/rke2/agent/etc/containerd/config.toml"),
    Path("/var/snap/microk8s/current/args/containerd.toml"),
    _CONTAINERD,
)
_CRIO, _CRIO_DROP_INS = Path("/etc/crio/crio.conf"), Path("/etc/crio/crio.conf.d")
_MOST_LINKS = 40
"""That the kernel follows in one path (path_resolution(7))."""
_CRI = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri")
"""What the plugin with CNI is called in versions 3, 2 and 1 of containerd's configuration."""


@dataclass(frozen=True, slots=True)
class CniPlaces:
    """Directories of one runtime, as they are seen from here."""

    conf_dir: Path
    """Where it finds networks."""
    bin_dir: Path
    """Where it finds plugins, and a plugin can be put."""
    said_by: Path | None = None
    """The runtime's configuration; None: these are the defaults."""


def find(network_name: str, root: Path = ROOT) -> CniPlaces:
    """Where the runtime that makes pods of that network has its files.

    `root` is where the node's root directory is seen from here. ConfigError: a configuration can't
    be read, so that its runtime's places are not known.
    """
    found = list(_running(root)) or list(_installed(root)) or [_default(root)]
    for places in found:
        if network.lists(places.conf_dir, network_name):
            return places
    return found[0]


def chosen(
    network_name: str, root: Path, *, conf_dir: Path | None, bin_dir: Path | None
) -> CniPlaces:
    """The directories that are given; one that is not is found. ConfigError: see `find`."""
    if conf_dir and bin_dir:
        return CniPlaces(conf_dir, bin_dir)
    found = find(network_name, root)
    return replace(found, conf_dir=conf_dir or found.conf_dir, bin_dir=bin_dir or found.bin_dir)


def told(network_name: str) -> CniPlaces:
    """As `chosen`, by the environment that commands with options for it read."""
    return chosen(
        network_name,
        _variable(ROOT_VARIABLE) or ROOT,
        conf_dir=_variable(NETWORKS_VARIABLE),
        bin_dir=_variable(PLUGINS_VARIABLE),
    )


def _variable(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None


def _running(root: Path) -> Iterator[CniPlaces]:
    """Of the runtimes among the node's processes, in order of their numbers."""
    processes = (root / "proc").glob("[0-9]*")
    for process in sorted(processes, key=lambda path: int(path.name)):
        try:
            # Not `exe`, which a process with fewer capabilities may not read.
            arguments = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended
        words = [word.decode(errors="replace") for word in arguments]
        name = words[0].rpartition("/")[2]
        if name == "containerd":
            file = _option(words, "--config", "-c") or _CONTAINERD
            if places := _of_containerd(root, file):
                yield places
        elif name == "crio":
            yield _of_crio(root, _option(words, "--config", "-c") or _CRIO)


def _installed(root: Path) -> Iterator[CniPlaces]:
    """Of the runtimes with a configuration."""
    for file in _CONTAINERDS:
        if below(root, file).exists() and (places := _of_containerd(root, file)):
            yield places
    if below(root, _CRIO).exists() or below(root, _CRIO_DROP_INS).exists():
        yield _of_crio(root, _CRIO)
    if below(root, conf := _K3S / "agent/etc/cni/net.d").exists():
        yield CniPlaces(below(root, conf), _first(root, _k3s_plugins(_K3S)))


def _default(root: Path) -> CniPlaces:
    return CniPlaces(below(root, CONF), below(root, BIN))


def _of_containerd(root: Path, file: Path) -> CniPlaces | None:
    """None: this containerd makes no pods, as Docker's does not."""
    said: Table = {}
    for each in _with_imports(root, file):
        content = _read(each)
        disabled = _list(content.get("disabled_plugins"), each)
        if any("cri" in str(name).split(".") for name in disabled):
            return None
        configured = _table(content.get("plugins"), each)
        for name in reversed(_CRI):
            said |= _table(_table(configured.get(name), each).get("cni"), each)
    plugins = said.get("bin_dirs") or said.get("bin_dir") or _usual_plugins(file)
    conf = said.get("conf_dir") or _usual_networks(file)
    return _places(root, file, conf, plugins)


def _of_crio(root: Path, file: Path) -> CniPlaces:
    said: Table = {}
    drop_ins = below(root, _CRIO_DROP_INS)
    for each in [below(root, file), *sorted(drop_ins.glob("*"))]:
        content = _table(_read(each).get("crio"), each)
        said |= {k: v for k, v in _table(content.get("network"), each).items() if v}
    plugins = said.get("plugin_dirs") or said.get("plugin_dir") or BIN
    conf = said.get("network_dir") or CONF
    return _places(root, file, conf, plugins)


def _places(root: Path, file: Path, conf: object, plugins: object) -> CniPlaces:
    networks, *_ = _paths(conf, file)
    return CniPlaces(below(root, networks), _first(root, _paths(plugins, file)), below(root, file))


def _with_imports(root: Path, file: Path) -> Iterator[Path]:
    """A configuration of containerd and what it imports, which counts more, in its order."""
    own = below(root, file)
    yield own
    for pattern in _list(_read(own).get("imports"), own):
        path = file.parent / str(pattern)  # An absolute one stays as it is.
        yield from sorted(below(root, path.parent).glob(path.name))


def _usual_networks(file: Path) -> Path:
    data = _k3s_data(file)
    return data / "agent/etc/cni/net.d" if data else CONF


def _usual_plugins(file: Path) -> list[Path]:
    data = _k3s_data(file)
    return _k3s_plugins(data) if data else [BIN]


def _k3s_data(file: Path) -> Path | None:
    """k3s' data directory, if that is its containerd's configuration. RKE2 brings no flannel."""
    is_ours = file.parts[-4:] == ("agent", "etc", "containerd", "config.toml")
    return file.parents[3] if is_ours and "rke2" not in file.parts else None


def _k3s_plugins(data: Path) -> list[Path]:
    return [data / "data/cni", data / "data/current/bin"]


def _option(words: list[str], *names: str) -> Path | None:
    """The value of a path's option of a command line, in either spelling."""
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            following = words[number + 1] if number + 1 < len(words) else ""
            text = value if equals else following
            return Path(text) if text.startswith("/") else None
    return None


def _paths(said: object, file: Path) -> list[Path]:
    paths = [Path(str(path)) for path in (said if isinstance(said, list) else [said])]
    if not all(path.is_absolute() for path in paths):
        raise ConfigError(f"{file} has a path that is not absolute; mend it, or {_ADVICE}")
    return paths


def _first(root: Path, directories: list[Path]) -> Path:
    """The first that is there; none is: the first."""
    seen = [below(root, directory) for directory in directories]
    return next((directory for directory in seen if directory.is_dir()), seen[0])


def below(root: Path, path: Path) -> Path:
    """Where an absolute path of the node is seen from here."""
    if root == ROOT:
        return path
    # A link to an absolute path is one from the node's root directory, and not from ours.
    for _ in range(_MOST_LINKS):
        before, path = path, _without_link(root, path)
        if path == before:
            break
    return root / path.relative_to("/")


def _without_link(root: Path, path: Path) -> Path:
    """The path with what its first such link names in place of that; itself: it has none."""
    for place in reversed([path, *path.parents][:-1]):
        seen = root / place.relative_to("/")
        if seen.is_symlink() and (target := seen.readlink()).is_absolute():
            return target / path.relative_to(place)
    return path


def _read(file: Path) -> Table:
    """The TOML in a file; empty: there is none. ConfigError: it is not TOML."""
    try:
        return loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; {_ADVICE}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not TOML ({error}); mend it, or {_ADVICE}") from None


_ADVICE = "name the runtime's directories with --cni-conf-dir and --cni-bin-dir"


def _table(value: object, file: Path) -> Table:
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise ConfigError(f"{file} has a value where a table belongs; mend it, or {_ADVICE}")


def _list(value: object, file: Path) -> list[object]:
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise ConfigError(f"{file} has a value where a list belongs; mend it, or {_ADVICE}")
