# SPDX-License-Identifier: Apache-2.0
"""What documents list is what the code has: verdicts, metrics, requests, keys of `--json`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from vxlane.agent.server import metrics, status
from vxlane.agent.server.operations import Operations
from vxlane.datapath.abi import Verdict
from vxlane.lab import lab, report
from vxlane.mechanisms.kinds import MEANING, Kind
from vxlane.profile import document as profiled
from vxlane.profile import measure
from vxlane.show import documents

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def entries(text):
    """The first column of all tables in `text`, where it is between backquotes."""
    return re.findall(r"^\| `(\w+)`", text, re.MULTILINE)


def test_every_verdict_is_explained():
    """operate.md has one entry for each verdict of bpf/vxlane.h, with all four columns filled."""
    text = (DOCS / "operate.md").read_text().partition("## Verdicts")[2]
    assert sorted(entries(text)) == sorted(verdict.label for verdict in Verdict)
    rows = re.findall(r"^\| `.*$", text, re.MULTILINE)
    assert all(
        len([cell for cell in row.strip("|").split("|") if cell.strip()]) == 4 for row in rows
    )


def test_every_mechanism_is_explained():
    """mechanisms.md has one entry for each kind of mechanism, in the program's own words."""
    text = (DOCS / "mechanisms.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    assert sorted(rows) == sorted(kind.value for kind in Kind)
    assert {kind for kind, meaning in MEANING.items() if meaning not in rows[kind.value]} == set()


def test_every_metric_is_explained():
    """operate.md names each metric that is served."""
    text = (DOCS / "operate.md").read_text()
    source = inspect.getsource(metrics)
    named = set(re.findall(r'"(vxlane_\w+)"', source))
    gauges = {f"vxlane_{name}" for name in metrics._GAUGES}
    assert {name for name in named | gauges if f"`{name}" not in text} == set()


def test_every_request_is_explained():
    """The agent's README has one entry for each request that its socket answers."""
    text = (ROOT / "loader/vxlane/agent/README.md").read_text()
    table = text.partition("| op |")[2].partition("\n\n")[0]
    assert sorted(entries(table)) == sorted(Operations(agent=None)._known)


def test_every_key_is_explained():
    """json.md names each key of what `--json` prints."""
    text = (DOCS / "json.md").read_text()
    printed = (documents, status.document, lab.Lab.status, report, profiled, measure.take)
    code = "".join(map(inspect.getsource, printed))
    keys = re.findall(r'^\s+"(\w+)":', code, re.MULTILINE)
    assert {key for key in keys if f"**{key}**" not in text} == set()
