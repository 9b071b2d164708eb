# SPDX-License-Identifier: Apache-2.0
"""A thread that reads rules and devices, so that the agent's own thread never waits for them.

`request` asks it to read. Its descriptor becomes readable when there is a new reading. All requests
that come during a reading are answered by the next one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, replace
from math import inf

from vxlane.errors import VxlaneError
from vxlane.host.events import ObjectName, RulesetChange
from vxlane.mechanisms import untracked
from vxlane.mechanisms.conntrack import ConntrackReader
from vxlane.mechanisms.devices import DeviceReader, Devices
from vxlane.mechanisms.findings import findings, may_drop_established
from vxlane.mechanisms.ipvs import IpvsReader
from vxlane.mechanisms.kinds import OF_A_CONNECTION, Finding, Kind
from vxlane.mechanisms.legacy_reader import LegacyReader
from vxlane.mechanisms.nft_reader import NftReader
from vxlane.mechanisms.packet import View
from vxlane.mechanisms.rules import ChainKey, Rule

log = logging.getLogger(__name__)

_NOTHING = RulesetChange()

_NAT_EVERY = 25.0
"""Seconds between two readings of nat rules that may translate the tunnel. They list the chains of
kube-proxy, of which there may be thousands.
"""
_LEGACY = "iptables-legacy, whose changes have no events"

SILENT_EVERY = 1.0
"""Seconds between two readings of iptables-legacy and IPVS, whose changes have no events."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the rules and devices are to be judged by."""

    view: View
    devices: Devices
    untracks: bool = False
    """Whether to look for rules because of which the tunnel's packets must be tracked."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read last."""

    found: tuple[Finding, ...] = ()
    hindrances: tuple[str, ...] = ()
    """See `untracked.hindrances`. Empty if the question did not ask for them."""
    question: Question | None = None
    """The question that this answers."""
    may_drop: bool = True
    """See `may_drop_established`."""
    has_silent_change: bool = False
    """Something that has no events changed, so approvals are to be withdrawn."""
    seconds: float = 0.0
    """How long the reading took."""


@dataclass(slots=True)
class _Work:
    """What was requested and is not read yet."""

    question: Question | None = None
    change: RulesetChange = _NOTHING
    is_due: bool = False
    has_all: bool = False
    """Whether to read devices and connections, too, and the rules that name a device by its number,
    and not only rules that changed.
    """


class _Reader:
    """What the thread has open, and what it has read."""

    def __init__(self, devices: DeviceReader, ipvs: IpvsReader) -> None:
        self._devices = devices
        self._ipvs = ipvs
        self._nft = NftReader()
        self._nat = NftReader()
        """A reader of its own, because changes of nat chains do not withdraw approvals."""
        self._legacy = LegacyReader()
        self._conntrack = ConntrackReader()
        self._beside: tuple[Finding, ...] = ()
        """Findings about devices and connections, which cost more to read and change less often."""
        self._binding: frozenset[Kind] = frozenset()
        self._nat_read = -inf
        self._failure = ""
        self._has_silent_change = False
        """Since the last reading that did not fail."""

    def close(self) -> None:
        self._nft.close()
        self._nat.close()
        self._legacy.close()
        self._conntrack.close()

    def read(self, work: _Work) -> Reading | None:
        """A new reading. None: nothing was requested, and nothing changed. Never raises: what can't
        be read is a finding.
        """
        began = time.monotonic()
        try:
            self._has_silent_change |= self._legacy.refresh()
            self._has_silent_change |= self._ipvs.refresh()
            is_asked = work.is_due or self._has_silent_change or self._failure
            if work.question is None or not is_asked:
                return None
            self._nft.forget(work.change)
            if work.has_all:
                self._nft.forget_devices()
            bases = self._nft.bases() + self._legacy.bases()
            found = findings(bases, self._rules, work.question.view)
            may_drop = may_drop_established(bases, self._rules, work.question.view)
            self._read_beside(work, work.question, found)
            found += self._beside + self._ipvs.findings()
            hindrances = self._hindrances(work.question)
            self._note("")
        except (VxlaneError, OSError) as error:
            self._note(str(error))
        except Exception as error:
            log.exception("reading rules failed in an unexpected way")
            self._note(f"unexpected {type(error).__name__}: {error}; please report it")
        if self._failure:
            # Next time everything is read.
            self._nft.forget(RulesetChange(lost=True))
            self._binding = frozenset({Kind.UNKNOWN})
            unknown = f"not readable: {self._failure}"
            return Reading((Finding(Kind.UNKNOWN, unknown),), (unknown,), work.question)
        seconds = time.monotonic() - began
        is_silent, self._has_silent_change = self._has_silent_change, False
        return Reading(found, hindrances, work.question, may_drop, is_silent, seconds)

    def _read_beside(self, work: _Work, question: Question, found: tuple[Finding, ...]) -> None:
        """Read devices and connections if that was requested, or if a rule that binds connections
        came or went: a connection may outlive its rule.
        """
        binding = frozenset(finding.kind for finding in found) & OF_A_CONNECTION
        if work.has_all or binding != self._binding:
            self._beside = self._devices.findings(question.devices)
            self._beside += self._conntrack.findings(question.view)
        self._binding = binding

    def _hindrances(self, question: Question) -> tuple[str, ...]:
        """See `untracked.hindrances`. Rules of NAT may be some seconds old, since they act on a
        connection's first packet only.
        """
        if not question.untracks:
            return ()
        if self._legacy.is_used:
            return (_LEGACY,)
        if time.monotonic() > self._nat_read + _NAT_EVERY:
            self._nat_read = time.monotonic()
            self._nat.forget(RulesetChange(lost=True))
        nats = [base for base in self._nat.bases() if base.is_nat]
        filters = [base for base in self._nft.bases() if not base.is_nat]
        translating = untracked.hindrances(nats, self._nat.rules, question.view)
        return translating + untracked.hindrances(filters, self._nft.rules, question.view)

    @property
    def known(self) -> frozenset[ObjectName] | None:
        """The nftables chains and sets that packets of pods may meet. None: the last reading
        failed, so any may be among them.
        """
        return None if self._failure else self._nft.known

    def _rules(self, key: ChainKey) -> tuple[Rule, ...]:
        return self._legacy.rules(key) if key.is_legacy else self._nft.rules(key)

    def _note(self, failure: str) -> None:
        if failure and failure != self._failure:
            log.error("rules and devices: %s", failure)
        self._failure = failure


class Watcher:
    """The thread. It reads in the network namespace of the thread that makes it."""

    def __init__(self, devices: DeviceReader, ipvs: IpvsReader) -> None:
        self._reader = _Reader(devices, ipvs)
        self._condition = threading.Condition()
        self._work = _Work()
        self._asked = self._read = 0
        self._known: frozenset[ObjectName] | None = frozenset()
        self._reading: Reading | None = None
        self._is_closed = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="mechanisms", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """For a selector: readable when there is a new reading."""
        return self._wake

    def close(self) -> None:
        """End the thread."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        self._thread.join()
        os.close(self._wake)

    @property
    def is_pending(self) -> bool:
        """Whether something was requested that is not read yet."""
        with self._condition:
            return self._read != self._asked

    def concerns(self, change: RulesetChange) -> bool:
        """Whether packets of pods may meet what changed, as far as the rules are known.

        A change of a table itself switches it on or off. A new table has nothing in it.
        """
        if change.lost or change.bases:
            return True
        with self._condition:
            if self._known is None or self._read != self._asked:
                return True
            tables = {(family, table, "") for family, table, _ in self._known}
            return bool(change.names & (self._known | tables))

    def request(self, question: Question | None = None, change: RulesetChange = _NOTHING) -> None:
        """Ask for a reading of the rules that changed. Without a `change` also what changes without
        an event is read: devices, connections, and rules that name a device by its number.
        """
        with self._condition:
            work = self._work
            work.question = question or work.question
            work.has_all |= change == _NOTHING
            work.change = RulesetChange(
                work.change.names | change.names,
                work.change.bases or change.bases,
                work.change.lost or change.lost,
            )
            if work.question:
                self._asked += 1
                work.is_due = True
                self._condition.notify_all()

    def take(self) -> Reading | None:
        """The new reading, if there is one. Makes the descriptor unreadable again."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return None
        with self._condition:
            reading, self._reading = self._reading, None
            return reading

    def wait(self, seconds: float) -> None:
        """Wait until everything that was requested is read, but no longer than `seconds`."""
        with self._condition:
            self._condition.wait_for(lambda: self._read == self._asked, seconds)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(self._has_work, SILENT_EVERY)
                if self._is_closed:
                    break
                work, self._work = self._work, _Work(question=self._work.question)
                asked = self._asked
            reading = self._reader.read(work)
            with self._condition:
                if reading:
                    if self._reading and self._reading.has_silent_change:
                        reading = replace(reading, has_silent_change=True)
                    self._reading = reading
                    os.eventfd_write(self._wake, 1)
                self._read, self._known = asked, self._reader.known
                self._condition.notify_all()
        self._reader.close()

    def _has_work(self) -> bool:
        return self._work.is_due or self._is_closed
