# SPDX-License-Identifier: Apache-2.0
"""What documents list is what the code has: verdicts, metrics, requests, keys of `--json`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from scraped import Scraped

from vxlane.agent.server import report as agent_report
from vxlane.agent.server import status
from vxlane.agent.server.operations import Operations
from vxlane.bench import document as bench_document
from vxlane.bench import programs as bench_programs
from vxlane.bench import run as bench_run
from vxlane.cluster import nodes as cluster_nodes
from vxlane.connectivity import result
from vxlane.datapath.abi import Verdict
from vxlane.doctor import findings, trial
from vxlane.lab import lab, report
from vxlane.mechanisms.kinds import MEANING, Kind
from vxlane.profile import document as profiled
from vxlane.profile import measure
from vxlane.show import documents, rates
from vxlane.show import slow as slow_node
from vxlane.sources.model import Backend
from vxlane.why import answer, node, slow

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PRINTING = (
    *(documents, status.document, lab.Lab.status, report),
    *(cluster_nodes.document, agent_report),
    *(rates, slow_node),
    *(answer, node, slow),
    *(findings, trial),
    *(profiled, measure.take),
    *(bench_document, bench_programs, bench_run),
    result,
)
"""What makes the documents that `--json` prints."""


def entries(text):
    """The first column of all tables in `text`, where it is between backquotes."""
    return re.findall(r"^\| `(\w+)`", text, re.MULTILINE)


def test_every_verdict_is_listed():
    """verdicts/README.md has one line for each verdict of bpf/vxlane.h, which leads to its page."""
    text = (DOCS / "verdicts/README.md").read_text()
    rows = re.findall(r"^\| \[`(\w+)`\]\((\w+)\.md\) \| \S", text, re.MULTILINE)
    assert sorted(rows) == sorted((verdict.label, verdict.label) for verdict in Verdict)


def test_backends_have_flannels_names():
    """compatibility.md names flannel's backends and ours alike, and ours are those of the code."""
    text = (DOCS / "compatibility.md").read_text()
    [(flannels, ours)] = re.findall(r"^\| backends (.+) \.\.\. \| (.+) \|$", text, re.MULTILINE)
    named = set(re.sub(r" \(.*?\)", "", ours).split(" and "))
    assert named == {item.value for item in Backend if item is not Backend.OTHER}
    assert named <= set(flannels.split(", "))


def test_every_verdict_has_its_page():
    """Each page says what the verdict means, when it is normal and when not, and what to do."""
    pages = {path.stem: path.read_text() for path in (DOCS / "verdicts").glob("*.md")}
    del pages["README"]
    assert sorted(pages) == sorted(verdict.label for verdict in Verdict)
    for label, text in pages.items():
        head, *parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
        assert re.match(rf"# {label}\n\n\S", head), label
        assert parts[::2] == ["Normal", "A problem", "See it", "Mend it"], label
        assert all(part.strip() for part in parts[1::2]), label


def test_every_mechanism_is_explained():
    """mechanisms.md has one entry for each kind of mechanism, in the program's own words."""
    text = (DOCS / "mechanisms.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    assert sorted(rows) == sorted(kind.value for kind in Kind)
    assert {kind for kind, meaning in MEANING.items() if meaning not in rows[kind.value]} == set()


def test_every_metric_is_explained(monkeypatch):
    """operate.md's table has each sample that is served, histograms by their family's name."""
    table = (DOCS / "operate.md").read_text().partition("| metric |")[2].partition("\n\n")[0]
    listed = re.findall(r"`(vxlane_\w+)`", "".join(re.findall(r"^\|.*?\|", table, re.MULTILINE)))
    served = {
        family.name if family.type == "histogram" else sample.name
        for family in Scraped(monkeypatch).families().values()
        for sample in family.samples
    }
    assert sorted(listed) == sorted(served)


def test_every_request_is_explained():
    """The agent's README has one entry for each request that its socket answers."""
    text = (ROOT / "loader/vxlane/agent/README.md").read_text()
    table = text.partition("| op |")[2].partition("\n\n")[0]
    assert sorted(entries(table)) == sorted(Operations(agent=None)._known)


def test_every_key_is_explained():
    """json.md names each key of what `--json` prints."""
    text = (DOCS / "json.md").read_text()
    code = "".join(map(inspect.getsource, PRINTING))
    keys = re.findall(r'^\s+"(\w+)":', code, re.MULTILINE)
    assert {key for key in keys if f"**{key}**" not in text} == set()


def test_the_glossary_is_short():
    """It has at most 40 lines, so that only words stand there whose sense is narrow."""
    lines = (DOCS / "glossary.md").read_text().splitlines()
    assert len(lines) <= 40
    words = [line.split(" | ")[0] for line in lines if line.startswith("| ")][1:]
    assert words == sorted(words, key=str.lower)
