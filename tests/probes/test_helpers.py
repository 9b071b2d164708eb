# SPDX-License-Identifier: Apache-2.0
"""The kernel's helpers are tried, in a place that leaves nothing behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vxlane.probes import helpers, instructions
from vxlane.probes.helpers import PROBES, Answer, Probe
from vxlane.probes.place import MARKER, arrived, run


@pytest.mark.tcx
@pytest.mark.usefixtures("_machine")
def test_every_helper_works_on_this_kernel():
    """Linux 6.18 does all that vxlane tries; each answer carries its meaning."""
    found = helpers.results()
    assert [(each.name, each.answer, each.reason) for each in found] == [
        (probe.name, Answer.YES, "") for probe in PROBES
    ]
    assert all(each.meaning for each in found)


@pytest.mark.usefixtures("_machine")
def test_a_place_leaves_nothing_behind():
    """When a probe has ended, no thread, descriptor or network of its own is left."""
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    here = Path("/proc/self/ns/net").readlink()
    inside = run(lambda _: Path("/proc/thread-self/ns/net").readlink())
    assert inside != here
    assert Path("/proc/self/ns/net").readlink() == here
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before


@pytest.mark.usefixtures("_machine")
def test_what_does_not_arrive_is_a_no():
    """A program that drops every frame makes a probe of arrival say no: the frame really counts."""

    def dropped(place):
        with place.tap("pod") as tap, place.attached(*instructions.answer(instructions.DROP)):
            place.send(bytes(14) + MARKER)
            return arrived(tap)

    assert run(dropped) is None


@pytest.mark.usefixtures("_machine")
def test_a_refusal_is_a_no_with_its_reason(monkeypatch):
    """A program that the verifier refuses is told with the kernel's word."""

    def refused(place):
        with place.attached(instructions.end()):  # R0 was never written
            return True

    monkeypatch.setattr(helpers, "PROBES", (Probe("odd", refused, "nothing"),))
    (found,) = helpers.results()
    assert found.answer is Answer.NO
    assert found.reason.startswith("the kernel refuses it: ")


def test_without_root_nothing_is_known(monkeypatch):
    """Where no namespace can be made, each answer is "unknown", with the reason."""

    def no_place(_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(helpers, "run", no_place)
    found = helpers.results()
    assert {each.answer for each in found} == {Answer.UNKNOWN}
    assert {each.reason for each in found} == {"no place to try it in: Operation not permitted"}
