# SPDX-License-Identifier: Apache-2.0
"""Every check, in the order in which they are told. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from vxlane.doctor.checks import agent, devices, kernel, peers, plugin, rules, settings
from vxlane.doctor.facts import Facts
from vxlane.doctor.findings import Finding, worst

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    kernel.version,
    kernel.helpers,
    kernel.compiler,
    agent.agent,
    agent.lease,
    agent.pins,
    plugin.plugin,
    devices.vtep,
    devices.mtu,
    devices.offloads,
    devices.programs,
    devices.shapers,
    devices.macs,
    devices.port,
    settings.bridge_netfilter,
    settings.forwarding,
    settings.reverse_paths,
    settings.conntrack_size,
    settings.conntrack_windows,
    rules.readable,
    rules.silent,
    rules.flowtables,
    rules.engines,
    rules.mechanisms,
    peers.reachable,
    peers.entries,
    peers.stale,
)


_MOST = 20
"""Findings of one check. With thousands of peers more would hide all others."""


def findings(facts: Facts) -> list[Finding]:
    """What all checks find, of each the first ones and how many more there are."""
    return [finding for check in CHECKS for finding in _first(list(check(facts)))]


def _first(found: list[Finding]) -> list[Finding]:
    if len(found) <= _MOST:
        return found
    rest = found[_MOST:]
    says = f"{len(rest)} more like these"
    return [*found[:_MOST], replace(rest[0], level=worst(rest), says=says, fix=("vxlane doctor",))]
