# SPDX-License-Identifier: Apache-2.0
"""Conversations between pods: talk.py started in their namespaces, and what it reports."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vxlane.lab.waiting import wait_for

TALK = str(Path(__file__).with_name("talk.py"))
PORT = 8080
"""Where pods serve."""
OUTSIDE = "192.168.77.250"
"""A host on the nodes' network that is no node."""


@dataclass(frozen=True, slots=True)
class Call:
    """`count` conversations, `at_once` of them side by side; sizes in bytes, times in seconds."""

    address: str
    to_port: int = PORT
    protocol: str = "tcp"
    count: int = 1
    at_once: int = 1 << 16
    rounds: int = 1
    pause: float = 0.0
    idle: float = 0.0
    """A longer pause after half of the rounds."""
    size: int = 200
    port: int = 0
    """Source port of the first, the others take the following; 0: any."""
    end: str = "fin"
    """Or "client resets", or "server resets"."""
    timeout: float = 40.0
    """Seconds that one conversation may take."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a call.

    `talks` went through: each is (server, seen as, seen from port, port, longest wait in seconds).
    """

    errors: dict[str, int]
    talks: list[tuple[str, str, int, int, float]]
    ended: float
    """When the last of them did, time.monotonic()."""

    def servers(self):
        """Who answered."""
        return {talk[0] for talk in self.talks}

    def seen_as(self):
        """The addresses that servers saw."""
        return {talk[1] for talk in self.talks}

    def ports(self):
        """The callers' own ports."""
        return {talk[3] for talk in self.talks}

    def are_moved(self):
        """Whether netfilter moved one to another port, since an older connection still has its."""
        return any(seen != own for _, _, seen, own, _ in self.talks)

    def longest(self):
        """The longest that anybody waited for an echo, seconds."""
        return max(talk[4] for talk in self.talks)


@contextlib.contextmanager
def serving(lab, name, port=PORT):
    """A server in the pod `name` that goes by this name."""
    with lab.spawn(name, sys.executable, TALK, "serve", name, str(port), stdout=-1) as process:
        assert process.stdout.readline() == "listening\n"
        yield
    _hang_up(lab, name)


def _hang_up(lab, name):
    """End what a killed program left half-open, and repeating itself into other tests."""
    lab.exec(name, "ss", "--kill", "--tcp")


def call(lab, name, *calls):
    """Make the calls from the pod (or other namespace of the lab) `name`, all at once."""
    with calling(lab, name, *calls) as reports:
        pass
    return reports


@contextlib.contextmanager
def calling(lab, name, *calls):
    """Make the calls beside the block; their reports are there after its end."""
    reports = []
    argv = [sys.executable, TALK, "call", json.dumps([asdict(one) for one in calls])]
    with lab.spawn(name, *argv, stdout=-1) as process:
        yield reports
        said, _ = process.communicate(timeout=110)
    for report in json.loads(said):
        talks = [tuple(talk) for talk in report["talks"]]
        reports.append(Report(report["errors"], talks, report["ended"]))


def answered(reports, *calls):
    """Assert that every conversation of the calls went through."""
    assert [report.errors for report in reports] == [{}] * len(calls)
    assert [len(report.talks) for report in reports] == [call.count for call in calls]


class Heard:
    """The numbers that came through, and when each did (seconds, time.monotonic)."""

    def __init__(self, file):
        self._file = file

    def all(self):
        """[(number, when)]."""
        text = os.pread(self._file.fileno(), 1 << 24, 0).decode()
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [(int(n), float(when)) for n, when in (x.split() for x in lines if x[0].isdigit())]

    def await_more(self, count=20, seconds=10.0):
        """Return when `count` more have come through."""
        wanted = len(self.all()) + count
        wait_for(lambda: len(self.all()) >= wanted, f"{count} more numbers", seconds=seconds)

    def silent_after(self, moment, *, for_long=1.0, limit=20.0):
        """Seconds from `moment` to the last number that came before a silence `for_long`."""
        while time.monotonic() - self._last(moment) < for_long:
            assert time.monotonic() < moment + limit, "the numbers do not stop"
            time.sleep(0.05)
        return self._last(moment) - moment

    def _last(self, moment):
        return max([when for _, when in self.all()] + [moment])


@contextlib.contextmanager
def beating(lab, name, protocol, address, port=PORT, source=0):
    """A pod that sends 50 numbers a second and hears them come back."""
    argv = [sys.executable, TALK, "beat", protocol, address, str(port), str(source)]
    with tempfile.TemporaryFile() as file, lab.spawn(name, *argv, stdout=file):
        yield Heard(file)
    _hang_up(lab, name)


def pour(lab, client, server, size, port=9002):
    """Send `size` bytes by TCP and end by a RST; how that ended for the server."""
    swallow = [sys.executable, TALK, "swallow", str(port)]
    with lab.spawn(server, *swallow, stdout=-1) as process:
        assert process.stdout.readline() == "listening\n"
        argv = [sys.executable, TALK, "pour", lab.address(server), str(port), str(size)]
        lab.exec(client, *argv, timeout=100)
        return process.communicate(timeout=5)[0].strip()


@contextlib.contextmanager
def hearing(lab, name, port, *peer, answers=False):
    """A pod that hears numbers by UDP and never answers; `peer` (address, port) hears it first.

    Or one that `answers`.
    """
    role = "reply" if answers else "hear"
    argv = [sys.executable, TALK, role, str(port), *map(str, peer)]
    with tempfile.TemporaryFile() as file, lab.spawn(name, *argv, stdout=file):
        wait_for(lambda: os.pread(file.fileno(), 9, 0) == b"listening", "the listener")
        yield Heard(file)
