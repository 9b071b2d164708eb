# SPDX-License-Identifier: Apache-2.0
"""What was tried on the kernel is tried once a boot, and is what programs and commands go by."""

from __future__ import annotations

import json

import pytest

from vxlane.probes import helpers, known
from vxlane.probes.helpers import PROBES, Answer, as_result
from vxlane.show import kernel

answers = known.answers.__wrapped__
"""Without the memory of this process."""


@pytest.fixture
def tried(monkeypatch):
    """Have each probe answer yes, and count how often they are asked; change what comes next."""
    asked = []

    def results():
        asked.append(1)
        return tuple(as_result(probe, tried.answer, "") for probe in PROBES)

    def tried():
        return len(asked)

    tried.answer = Answer.YES
    monkeypatch.setattr(helpers, "results", results)
    return tried


def test_it_is_tried_once_a_boot(tmp_path, tried, monkeypatch):
    """The second who asks gets the same answers from the file; after a boot all is tried again."""
    path = tmp_path / "new" / "kernel.json"
    first = answers(path)
    assert answers(path) == first
    assert tried() == 1
    monkeypatch.setattr(known, "boot_id", lambda: "another")
    tried.answer = Answer.NO
    assert {each.answer for each in answers(path)} == {Answer.NO}
    assert tried() == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"boot_id": 1}', '{"boot_id": null, "names": []}']
)
def test_a_damaged_file_is_none(tmp_path, tried, text):
    """A file that is not one is not believed, and made anew."""
    path = tmp_path / "kernel.json"
    path.write_text(text)
    answers(path)
    assert tried() == 1
    answers(path)
    assert tried() == 1


def test_answers_of_other_probes_are_not_believed(tmp_path, tried):
    """What another version tried is tried again."""
    path = tmp_path / "kernel.json"
    answers(path)
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"names": document["names"][1:]}))
    answers(path)
    assert tried() == 2


def test_what_is_not_known_is_not_remembered(tmp_path, tried):
    """Without root nothing is known, and root that comes later finds out."""
    path = tmp_path / "kernel.json"
    tried.answer = Answer.UNKNOWN
    answers(path)
    assert not path.exists()
    tried.answer = Answer.YES
    assert {each.answer for each in answers(path)} == {Answer.YES}


def test_a_directory_that_takes_no_file(tmp_path, tried):
    """Where nothing can be kept the answers are given all the same."""
    (tmp_path / "file").write_text("")
    assert {each.answer for each in answers(tmp_path / "file" / "kernel.json")} == {Answer.YES}
    assert tried() == 1


@pytest.mark.parametrize(
    ("answer", "does"), [(Answer.YES, True), (Answer.NO, False), (Answer.UNKNOWN, False)]
)
def test_only_a_yes_is_built_into_the_programs(monkeypatch, answer, does):
    """What the kernel does not do, or nobody knows, the programs do without."""
    monkeypatch.setattr(known, "answers", lambda: (as_result(PROBES[-1], answer, ""),))
    assert known.does(PROBES[-1].name) is does
    assert not known.does("unheard of")


def test_the_document(monkeypatch):
    """It has each answer with its meaning, and says whether the kernel is enough for a bypass."""
    found = tuple(as_result(probe, Answer.YES, "") for probe in PROBES)
    monkeypatch.setattr(known, "answers", lambda: found)
    document = kernel.kernel()
    assert kernel.is_enough(document)
    assert document["probes"][0] == {
        "probe": PROBES[0].name,
        "answer": "yes",
        "needed": True,
        "meaning": PROBES[0].meaning,
        "reason": None,
    }
    for probe in PROBES:
        changed = [
            one if one.name != probe.name else as_result(probe, Answer.NO, "so") for one in found
        ]
        monkeypatch.setattr(known, "answers", lambda changed=changed: changed)
        assert kernel.is_enough(kernel.kernel()) is not as_result(probe, Answer.NO, "").is_needed
