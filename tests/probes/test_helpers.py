# SPDX-License-Identifier: Apache-2.0
"""The kernel's helpers are tried, in a place that leaves nothing behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vxlane.probes import helpers, instructions, source_port
from vxlane.probes.helpers import PROBES, Answer, Probe
from vxlane.probes.place import MARKER, arrived, run
from vxlane.probes.source_port import RANGE, port_of, ports

NEWER = {"decap_l4_udp", "last_port"}
"""What Linux 6.18 does not do."""


@pytest.mark.tcx
@pytest.mark.usefixtures("_machine")
def test_every_helper_works_on_this_kernel():
    """Linux 6.18 does all that vxlane tries but what newer ones do; each has its meaning."""
    found = helpers.results()
    assert {each.name for each in found if each.answer is Answer.NO} <= NEWER
    assert {each.answer for each in found} <= {Answer.YES, Answer.NO}
    assert [each.name for each in found] == [probe.name for probe in PROBES]
    assert all(bool(each.reason) == (each.answer is Answer.NO) for each in found)
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


FORMS = (False, True)
HASHES = [number * 0x9E3779B1 & 0xFFFFFFFF for number in range(1, 400)]


@pytest.mark.usefixtures("_machine")
def test_source_ports_are_those_of_one_form():
    """Hundreds of packets have the ports of one of the two known functions, and not of both."""
    seen = run(lambda place: ports(place, HASHES))
    agree = [
        seen == [port_of(each, *RANGE, is_last_used=form) for each in HASHES] for form in FORMS
    ]
    assert sorted(agree) == [False, True]


def test_half_of_all_flows_tell_the_forms_apart():
    """One form gives about half of all hashes the port behind the other's, and never the last."""
    low, high = RANGE
    pairs = [[port_of(each, low, high, is_last_used=form) for form in FORMS] for each in HASHES]
    assert {after - before for before, after in pairs} == {0, 1}
    assert 0.3 < sum(after - before for before, after in pairs) / len(pairs) < 0.7
    greatest = [port_of(0x0000FFFF, low, high, is_last_used=form) for form in FORMS]
    assert greatest == [high - 1, high]


@pytest.mark.parametrize("form", FORMS)
def test_the_probe_tells_each_form(monkeypatch, form):
    """Ports of either form are told as that form, whatever this kernel's are."""

    def given(_, hashes):
        return [port_of(each, *RANGE, is_last_used=form) for each in hashes]

    monkeypatch.setattr(source_port, "ports", given)
    assert source_port.uses_last_port(None) is form


def test_ports_of_neither_form_are_not_known(monkeypatch):
    """Of a third form nothing is claimed, and the reason is told."""
    monkeypatch.setattr(source_port, "ports", lambda _, hashes: [4789] * len(hashes))
    monkeypatch.setattr(helpers, "run", lambda function: function(None))
    monkeypatch.setattr(helpers, "PROBES", (Probe("odd", source_port.uses_last_port, "nothing"),))
    (found,) = helpers.results()
    assert found.answer is Answer.UNKNOWN
    assert found.reason.startswith("VXLAN's source ports are neither")
