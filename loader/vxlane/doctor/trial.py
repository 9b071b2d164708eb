# SPDX-License-Identifier: Apache-2.0
"""Tries a fix: looks before and after, and keeps it or takes it back.

Only what can be taken back as it was is tried: a kernel setting, an offload. Whatever ends the
trial early, Ctrl-C too, takes it back.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vxlane.doctor.findings import Finding, Json, Level
from vxlane.doctor.load import Load, Reading, between, worse
from vxlane.errors import ToolError
from vxlane.host import sysctls

TRIABLE = (
    *("offloads", "br-netfilter", "ip-forward", "rp-filter"),
    *("conntrack-size", "conntrack-tcp"),
)
"""Checks whose fixes are kernel settings or offloads."""

SECONDS = 10.0
"""How long traffic is watched before the fix, and after it."""

Examine = Callable[[], Sequence[Finding]]
Read = Callable[[], Reading]


@dataclass(frozen=True, slots=True)
class Change:
    """A command, and the one that takes it back."""

    do: str
    undo: str


def changes(found: Sequence[Finding], check: str) -> list[Change]:
    """What mends the findings of `check`, as far as it can be taken back."""
    commands = [command for finding in found if finding.check == check for command in finding.fix]
    return [change for command in commands if (change := _change(command))]


def _change(command: str) -> Change | None:
    match shlex.split(command):
        case ["sysctl", "-w", setting]:
            name, _, _ = setting.partition("=")
            value = sysctls.read(name)
            return None if value is None else Change(command, f"sysctl -w {name}={value}")
        case ["ethtool", "-K", device, feature, "on"]:
            return Change(command, f"ethtool -K {device} {feature} off")
        case _:
            return None


def attempt(check: str, was: Sequence[Finding], examine: Examine, read: Read) -> Json:
    """Mend what `was` found by `check`, and keep that unless something got worse.

    `examine` and `read` look at the node. docs/json.md has the keys of the answer. ToolError: a
    command failed, and what was done before it was taken back.
    """
    wanted, before = changes(was, check), _watch(read)
    done: list[Change] = []
    try:
        for change in wanted:
            done.append(change)
            _run(change.do)
        after, now = _watch(read), examine()
        reason = _objection(check, was, now) or worse(before, after)
    except BaseException:  # Ctrl-C too
        _take_back(done)
        raise
    if reason:
        _take_back(done)
    return {
        "tried": [change.do for change in wanted],
        "kept": not reason,
        "reason": reason or None,
        "undo": [change.undo for change in reversed(wanted)],
        "before": _document(before),
        "after": _document(after),
    }


def _watch(read: Read) -> Load:
    first = read()
    time.sleep(SECONDS)
    return between(first, read())


def _objection(check: str, was: Sequence[Finding], now: Sequence[Finding]) -> str:
    """What speaks against it by the findings: it mends nothing, or brings something new."""
    known = set(map(_identity, was))
    for finding in now:
        if finding.level is Level.OK:
            continue
        if finding.check == check and _identity(finding) in known:
            return f"it did not mend this: {finding.says}"
        if _identity(finding) not in known:
            return f"it brought this: {finding.check}: {finding.says}"
    return ""


def _identity(finding: Finding) -> Finding:
    """`finding` without what counts on: "has dropped 3 packets". Its commands tell who it is of."""
    return replace(finding, says=re.sub(r"\d[\d.,]*", "", finding.says))


def _take_back(done: Sequence[Change]) -> None:
    """Undo all of them, the last first. ToolError: one could not be undone; the others were."""
    failures = []
    for change in reversed(done):
        try:
            _run(change.undo)
        except ToolError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _run(command: str) -> None:
    try:
        ended = subprocess.run(shlex.split(command), check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ToolError(f"{error.filename} is not installed; install it for: {command}") from None
    if ended.returncode:
        said = ended.stderr.strip() or ended.stdout.strip() or "it gave no reason"
        raise ToolError(f"{command}: {said}")


def _document(load: Load) -> Json:
    return {
        "seconds": round(load.seconds, 1),
        "bytes_per_second": round(load.rate),
        "kernel_ns_per_byte": round(load.cost, 3) if load.is_enough else None,
        "lost": load.lost,
        "invalid": load.invalid,
    }


def text(document: Json) -> str:
    """The same for people."""
    word = "kept" if document["kept"] else f"taken back: {document['reason']}"
    lines = [f"{command}\n  {word}" for command in document["tried"]]
    if document["kept"]:
        lines += [f"  $ {command}    # takes it back" for command in document["undo"]]
    for when in ("before", "after"):
        load = document[when]
        cost = load["kernel_ns_per_byte"]
        told = "too little traffic to judge the cost by" if cost is None else f"{cost} ns a byte"
        rate = load["bytes_per_second"] / 1e6
        losses = f"{load['lost']} lost, {load['invalid']} invalid"
        lines.append(f"{when.ljust(7)}{rate:.1f} MB/s, {told}, {losses}")
    return "\n".join(lines)
