# SPDX-License-Identifier: Apache-2.0
"""Drive a chain of CNI plugins as libcni does: a list of plugins in, one result out.

Each plugin gets the list's name and version, the capabilities that it asked for as runtimeConfig,
and the result of the plugin before it. DEL runs backwards. The final result is kept in libcni's
cache. CHECK takes it from there, and DEL from version 0.4.0 on. Imports errors and netns only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vxlane.errors import ToolError, ToolTimeoutError
from vxlane.runtime import netns

Json = dict[str, Any]

_TIMEOUT = 60.0
"""Seconds for one plugin."""


@dataclass(frozen=True, slots=True)
class ContainerInterface:
    """One interface of one container, which a runtime wants to have made."""

    container_id: str
    netns: Path
    ifname: str = "eth0"
    args: str = "IgnoreUnknown=1"
    """CNI_ARGS, e.g. IgnoreUnknown=1;K8S_POD_NAME=web."""
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    """Capability arguments, e.g. {"portMappings": [...]}; a plugin gets those that it declares."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A network's list of plugins on one node."""

    conflist: Mapping[str, Any]
    namespace: str | None
    """The node's network namespace, in which plugins run; None: this process's."""
    path: tuple[Path, ...]
    """Where plugins are, in order of search."""
    cache: Path
    """libcni's /var/lib/cni: results/<network>-<containerID>-<ifname>."""

    def add(self, interface: ContainerInterface) -> Json:
        """ADD by every plugin; the last one's result. A failed ADD is undone, as runtimes do."""
        result: Json | None = None
        try:
            for plugin in self._plugins():
                result = self._run("ADD", plugin, interface, result)
        except ToolError:
            with contextlib.suppress(ToolError):  # the runtime logs it, and reports the ADD's
                self.delete(interface)
            raise
        if result is None:
            raise ToolError(f'network "{self.conflist["name"]}" lists no plugins')
        self._store(interface, result)
        return result

    def delete(self, interface: ContainerInterface) -> None:
        """DEL, last plugin first. ToolError: one failed, and those before it were not called."""
        keep = self._version() >= (0, 4, 0)
        previous = self._cached(interface) if keep else None
        for plugin in reversed(self._plugins()):
            self._run("DEL", plugin, interface, previous)
        self._result_file(interface).unlink(missing_ok=True)

    def check(self, interface: ContainerInterface) -> None:
        """CHECK by every plugin, first to last. ToolError: one of them failed."""
        previous = self._cached(interface)
        for plugin in self._plugins():
            self._run("CHECK", plugin, interface, previous)

    def need_plugins(self) -> None:
        """ToolError: one is not there, so that what is made could be neither whole nor removed."""
        for plugin in self._plugins():
            self._find(plugin["type"])

    def _plugins(self) -> list[Json]:
        return list(self.conflist["plugins"])

    def _version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.conflist["cniVersion"].split("."))

    def _run(
        self, command: str, plugin: Json, interface: ContainerInterface, previous: Json | None
    ) -> Json | None:
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": interface.container_id,
            "CNI_NETNS": str(interface.netns),
            "CNI_IFNAME": interface.ifname,
            "CNI_ARGS": interface.args,
            "CNI_PATH": ":".join(map(str, self.path)),
        }
        config = json.dumps(self._config(plugin, interface, previous))
        what = f"CNI {command} {plugin['type']} {interface.container_id}"
        done = self._call(what, self._find(plugin["type"]), config, env)
        if done.returncode:
            said = _error_text(done.stdout) or done.stderr.strip() or "it gave no reason"
            raise ToolError(f"{what}: {said}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def _call(
        self, what: str, plugin: Path, config: str, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Inheritable descriptors are inherited: a lock is held until the last plugin under it
        ends, even if this process is killed.
        """
        try:
            return subprocess.run(
                netns.inside(self.namespace, [str(plugin)]),
                check=False,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                input=config,
                env={**os.environ, **env},
                close_fds=False,
            )
        except subprocess.TimeoutExpired:
            raise ToolTimeoutError(f"{what}: no end after {_TIMEOUT:g} s") from None
        except OSError as error:
            raise ToolError(f"{what}: {plugin} can't be run: {error.strerror}") from None

    def _config(self, plugin: Json, interface: ContainerInterface, previous: Json | None) -> Json:
        config = {key: value for key, value in plugin.items() if key != "capabilities"}
        config |= {key: self.conflist[key] for key in ("name", "cniVersion")}
        declared = plugin.get("capabilities", {})
        wanted = {k: v for k, v in interface.capabilities.items() if declared.get(k)}
        if wanted:
            config["runtimeConfig"] = wanted
        if previous is not None:
            config["prevResult"] = previous
        return config

    def _find(self, plugin: str) -> Path:
        for directory in self.path:
            if (directory / plugin).exists():
                return directory / plugin
        searched = ", ".join(map(str, self.path))
        raise ToolError(
            f'CNI plugin "{plugin}" is not in {searched}; install it, or name its directory'
        )

    def _result_file(self, interface: ContainerInterface) -> Path:
        name = f"{self.conflist['name']}-{interface.container_id}-{interface.ifname}"
        return self.cache / "results" / name

    def _store(self, interface: ContainerInterface, result: Json) -> None:
        file = self._result_file(interface)
        file.parent.mkdir(parents=True, exist_ok=True)
        entry = {
            "kind": "cniCacheV1",
            "containerId": interface.container_id,
            "config": base64.b64encode(json.dumps(self.conflist).encode()).decode(),
            "ifName": interface.ifname,
            "networkName": self.conflist["name"],
            "netns": str(interface.netns),
            "cniArgs": [pair.split("=", 1) for pair in interface.args.split(";")],
            "result": result,
        }
        file.write_text(json.dumps(entry), encoding="utf-8")

    def _cached(self, interface: ContainerInterface) -> Json | None:
        try:
            entry: Json = json.loads(self._result_file(interface).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        result: Json = entry["result"]
        return result


def _error_text(stdout: str) -> str:
    """The message of the specification's error object, which plugins print to stdout."""
    try:
        error = json.loads(stdout)
        return f"{error['msg']} (code {error['code']})"
    except (ValueError, KeyError, TypeError):
        return stdout.strip()
