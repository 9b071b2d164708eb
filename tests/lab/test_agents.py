# SPDX-License-Identifier: Apache-2.0
"""What is said of an agent that fails while a lab is made."""

from dataclasses import replace

import pytest

from vxlane.errors import LabError
from vxlane.lab import agents, namespaces
from vxlane.lab.plan import LabNode, plan_nodes


@pytest.fixture
def node(monkeypatch, tmp_path) -> LabNode:
    """A node whose agent has ended; its lab has a directory of the test's own."""
    [planned] = plan_nodes("lab", 1, kernel_only=0)
    made = replace(planned, directory=tmp_path / "lab" / "node1")
    monkeypatch.setattr(agents, "LABS", tmp_path)
    monkeypatch.setattr(namespaces, "pids", lambda _: [])
    made.directory.mkdir(parents=True)
    return made


def test_the_end_of_the_log_is_shown_and_all_of_it_kept(node, tmp_path):
    """The error has the last ten lines; the file that it names outlives the lab's directory."""
    text = "".join(f"line {number}\n" for number in range(1, 14))
    (node.directory / "agent.log").write_text(text, encoding="utf-8")
    kept = tmp_path / "lab-node1.log"
    with pytest.raises(LabError) as raised:
        agents.await_ready(node)
    first, *rest = str(raised.value).splitlines()
    assert first == f"the agent of lab-node1 failed: it ended; the end of {kept}:"
    assert rest == [f"  line {number}" for number in range(4, 14)]
    assert kept.read_text(encoding="utf-8") == text
    of_another = tmp_path / "lab-node1-x-node1.log"  # of lab "lab-node1-x"
    of_another.touch()
    assert agents.remove_kept_logs("lab") == [kept]
    assert (kept.exists(), of_another.exists()) == (False, True)


def test_an_agent_that_said_nothing(node):
    """Without a word no file is named."""
    with pytest.raises(LabError, match=r"lab-node1 failed: it ended; it said nothing$"):
        agents.await_ready(node)
