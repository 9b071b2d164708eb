# SPDX-License-Identifier: Apache-2.0
"""What was answered at one start serves at the next one, if it can't be asked then."""

from __future__ import annotations

from pathlib import Path

import pytest

from vxlane.agent.answers import FILE, Answers
from vxlane.errors import SourceError


def down() -> str:
    """No answer."""
    raise SourceError("etcd is down")


def test_an_earlier_answer_serves_while_the_source_is_down(tmp_path: Path) -> None:
    """The newest answer of the same source is used; without one there is none."""
    answers = Answers(tmp_path, "etcd /coreos.com/network")
    with pytest.raises(SourceError):
        answers.to("network", down)
    assert answers.to("network", lambda: "old") == "old"
    assert answers.to("network", lambda: "new") == "new"
    assert answers.to("name", lambda: "node1") == "node1"
    again = Answers(tmp_path, "etcd /coreos.com/network")
    assert (again.to("network", down), again.to("name", down)) == ("new", "node1")


def test_another_sources_answer_does_not_count(tmp_path: Path) -> None:
    """Another prefix is another network."""
    Answers(tmp_path, "etcd /one").to("network", lambda: "old")
    with pytest.raises(SourceError):
        Answers(tmp_path, "etcd /two").to("network", down)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", '{"source": 1}'])
def test_a_broken_file_is_no_answer(tmp_path: Path, content: str) -> None:
    """A file that no agent wrote is written anew."""
    (tmp_path / FILE).write_text(content)
    answers = Answers(tmp_path, "etcd")
    with pytest.raises(SourceError):
        answers.to("network", down)
    answers.to("network", lambda: "new")
    assert answers.to("network", down) == "new"


def test_an_answer_that_cannot_be_kept_is_still_one(tmp_path: Path) -> None:
    """A full or read-only disk does not keep an agent from starting."""
    answers = Answers(tmp_path / "nowhere", "etcd")
    assert answers.to("network", lambda: "new") == "new"
