# SPDX-License-Identifier: Apache-2.0
"""What `vxlane install` was asked for, and keeping it so.

Owns `<configuration directory>/.vxlane.installed`. Runtimes read no file of that suffix. k3s and
flannel's init container write their list anew at each start, k3s before 1.31 has another directory
of plugins after each upgrade, and a runtime that reads of a plugin it can't find fails every pod.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from vxlane.errors import ConfigError, VersionError
from vxlane.runtime import cni_places, interpreter, network
from vxlane.runtime.cni_places import CniPlaces
from vxlane.runtime.network import Form, Json, Plan, Role
from vxlane.util import files
from vxlane.util.inotify import DirectoryWatch
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)

_FILE = ".vxlane.installed"


@dataclass(frozen=True, slots=True)
class Installed:
    """One installation."""

    network: str
    role: Role
    form: Form | None
    """None: no list has the plugin any more, and its executables wait for the last pod's end."""
    plugin: Json
    programs: tuple[Path, ...]
    """The executable, and copies of it. The newest is the last."""

    def plan(self, directory: Path) -> Plan:
        """The files that have the runtime call the plugin. ConfigError: that can't be done now."""
        if self.form is None:
            return network.absent(directory, self.network)
        if self.role is Role.MAIN:
            return network.main(directory, self.network, plugin=self.plugin)
        return network.chained(directory, self.network, form=self.form, plugin=self.plugin)


def read(directory: Path) -> Installed | None:
    """The installation of a configuration directory; None: there is none."""
    file = directory / _FILE
    try:
        said = parse_json(file.read_bytes())
        return Installed(
            network=str(said["network"]),
            role=Role(said["role"]),
            form=Form(said["form"]) if said["form"] else None,
            plugin=dict(said["plugin"]),
            programs=_paths(said["programs"]),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; {_ADVICE}") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{file} is not what vxlane install wrote; {_ADVICE}") from None


def _paths(said: list[str]) -> tuple[Path, ...]:
    """ValueError: it is none, and an installation has an executable."""
    if not said:
        raise ValueError
    return tuple(map(Path, said))


_ADVICE = "run vxlane install again"


def write(directory: Path, installed: Installed) -> None:
    """Note an installation."""
    said = dataclasses.asdict(installed) | {
        "role": installed.role.value,
        "form": installed.form.value if installed.form else None,
        "programs": [str(path) for path in installed.programs],
    }
    files.write_if_changed(directory / _FILE, json.dumps(said, indent=2) + "\n")


def known(directory: Path) -> Installed | None:
    """As `read`, for another installation, which is the way out of a note that can't be read."""
    try:
        return read(directory)
    except ConfigError:
        return None


def with_copies(directory: Path, program: Path) -> tuple[Path, ...]:
    """`program` behind what else an earlier installation has left, for uninstall to remove."""
    last = known(directory)
    earlier = last.programs if last else ()
    return (*(path for path in earlier if path != program and path.exists()), program)


def forget(directory: Path) -> None:
    """Note that nothing is installed."""
    files.remove(directory / _FILE)


class PluginKeeper:
    """Keeps the installation as it is noted, wherever the runtime has its files now."""

    def __init__(self, conf_dir: Path | None, host_root: Path) -> None:
        self._conf_dir = conf_dir
        self._host_root = host_root
        self._watch: DirectoryWatch | None = None

    def start(self) -> int | None:
        """Follow the runtime's files; the descriptor for a selector, or None: there is no inotify.

        Without it `settle` is called now and then all the same.
        """
        try:
            self._watch = DirectoryWatch([])
        except OSError as error:
            log.warning("follow CNI files: %s; they are repaired late", error.strerror)
            return None
        return self._watch.fileno()

    def close(self) -> None:
        """Stop following."""
        if self._watch:
            self._watch.close()

    def on_event(self) -> None:
        """See `settle`; for events of other files nothing is done."""
        if self._watch and self._watch.read():
            self.settle()

    def settle(self) -> None:
        """Compare and repair. ConfigError, OSError: that can't be done now."""
        places = cni_places.find(network.USUAL, self._host_root)
        directory = self._conf_dir or places.conf_dir
        installed = read(directory)
        if installed and directory != places.conf_dir:
            # A person knows better which runtime it is.
            places = CniPlaces(directory, installed.programs[-1].parent)
        self._follow(places, installed)
        if installed:
            # Pods ask the agent meanwhile, so it waits for no install: the next resync compares.
            with contextlib.suppress(BlockingIOError), files.alone(places.bin_dir, waits=False):
                _repair(places)

    def _follow(self, places: CniPlaces, installed: Installed | None) -> None:
        if self._watch is None:
            return
        directories = {places.conf_dir, places.bin_dir}
        if places.said_by:
            directories.add(places.said_by.parent)
        if installed:
            directories.add(places.conf_dir / installed.network)
        for directory in directories:
            with contextlib.suppress(OSError):  # No more watches: the next resync finds changes.
                self._watch.follow(directory)


def _repair(places: CniPlaces) -> None:
    """By the note as it is while nobody installs or uninstalls."""
    directory = places.conf_dir
    installed = read(directory)
    if installed is None:
        return
    if installed.form and not (places.bin_dir / network.TYPE).exists():
        installed = _with_program(installed, places)
    try:
        plan = installed.plan(directory)
    except VersionError:
        # The list is another since, and pods are worth more than the bypass.
        _apply(directory, network.absent(directory, installed.network))
        raise
    _apply(directory, plan)


def _apply(directory: Path, plan: Plan) -> None:
    for change in network.apply(directory, plan):
        log.info("%s", change)


def _with_program(installed: Installed, places: CniPlaces) -> Installed:
    """Put the executable, with its interpreter, where the runtime looks for it now, and note it.

    ConfigError: there is no copy of it. A chained plugin has left the list then: else every pod
    would fail.
    """
    wanted = places.bin_dir / network.TYPE
    there = [program for program in installed.programs if program.exists()]
    if not there:
        if installed.role is Role.CHAINED:
            _apply(places.conf_dir, network.absent(places.conf_dir, installed.network))
        raise ConfigError(f"the CNI plugin {wanted} is gone; {_ADVICE}")
    for change in interpreter.copy(there[-1], wanted):
        log.info("%s, a copy from %s", change, there[-1].parent)
    others = tuple(path for path in installed.programs if path != wanted)
    installed = dataclasses.replace(installed, programs=(*others, wanted))
    write(places.conf_dir, installed)
    return installed
