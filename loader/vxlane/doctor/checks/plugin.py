# SPDX-License-Identifier: Apache-2.0
"""Who tells the agent of new pods: the CNI plugin, or the runtime's cache. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vxlane.doctor.facts import Facts
from vxlane.doctor.findings import Finding, fail, ok, warn

_CHECK = "cni-plugin"
_INSTALL = "vxlane install"


def plugin(facts: Facts) -> Iterator[Finding]:
    """The plugin that lists name is there, and the agent hears of new pods one way or another."""
    found = facts.plugin
    if found.error:
        meaning = "where this node's runtime has its CNI files is not known"
        yield warn(_CHECK, found.error, meaning)
    elif found.is_called and not found.is_there:
        says = f"lists in {found.conf_dir} name the plugin, and {found.program} can't be run"
        yield fail(_CHECK, says, "every new pod fails", _INSTALL)
    elif found.is_called:
        yield ok(_CHECK, f"lists in {found.conf_dir} name it, and {found.program} is there")
    elif facts.agent.status.get("pods_told_by") == "plugin":
        says = f"no list in {found.conf_dir} names the plugin, and the agent hears nothing else"
        yield fail(_CHECK, says, "new pods are not accelerated", _INSTALL)
    elif found.is_installed:
        says = f"it is installed, and no list in {found.conf_dir} names it any more"
        meaning = "the agent puts it back; until then it sees pods a little later, by itself"
        yield warn(_CHECK, says, meaning, _INSTALL)
    else:
        yield ok(_CHECK, "not installed; the agent sees pods in the runtime's cache")
