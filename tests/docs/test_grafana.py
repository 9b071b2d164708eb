# SPDX-License-Identifier: Apache-2.0
"""Every query of deploy/grafana asks for what an agent serves: metrics, labels and their values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from scraped import Scraped, samples

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
BY_PROMETHEUS = {"instance", "job", "le"}
WORDS = {"by", "and", "or", "on", "without", "ignoring", "unless", "offset", "bool"}

_MATCHERS = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_NAME = re.compile(r"(?<![\w:$.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])")


def rules() -> list[dict]:
    """All of the rule file."""
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict:
    """The dashboard."""
    return json.loads((FOLDER / "dashboard.json").read_text())


def queries() -> Iterator[tuple[str, str]]:
    """Where each query stands, and the query."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(
                r"label_values\((\w+), (\w+)\)", variable["query"]["query"]
            ).groups()
            yield variable["name"], f"sum by ({label}) ({name})"


def names(expression: str) -> set[str]:
    """The metrics that an expression reads."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|offset \w+', "", _GROUPING.sub("", expression))
    return {name for name in _NAME.findall(bare) if name not in WORDS}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, set[str]]]:
    """Name of each sample -> label -> its values."""
    found: dict[str, dict[str, set[str]]] = {"up": {"job": {"vxlane"}}}
    for sample in samples(Scraped(monkeypatch).families()):
        labels = found.setdefault(sample.name, {})
        for label, value in sample.labels.items():
            labels.setdefault(label, set()).add(value)
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = {"instance": set()}
    return found


def test_the_names_of_a_query_are_found() -> None:
    """What stands in strings, groupings, ranges and behind `offset` is no metric."""
    query = 'sum by (a) (rate(x_total{b="y"}[5m])) / on (c) y:z offset 1d > 0.5 and 1e9 * u{}'
    assert names(query) == {"x_total", "y:z", "u"}


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_a_query_names_what_is_served(
    where: str, query: str, served: dict[str, dict[str, set[str]]]
) -> None:
    """Its metrics, the labels that it selects and groups by, and the values that it selects."""
    asked = names(query)
    assert asked, where
    assert asked - served.keys() == set()
    known = BY_PROMETHEUS.union(*(served[name] for name in asked))
    grouped = {label.strip() for found in _GROUPING.findall(query) for label in found.split(",")}
    assert grouped - known == set()
    for name, matchers in _MATCHERS.findall(query):
        for label, _, value in _MATCHER.findall(matchers):
            assert label in served[name].keys() | BY_PROMETHEUS
            values = served[name].get(label, set())
            if "$" not in value:
                assert set(value.split("|")) <= values


def test_the_alerts_are_whole() -> None:
    """Each has a severity, a summary and what to do; the four that matter most are there."""
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    for alert in alerts.values():
        assert alert["for"]
        assert alert["labels"]["severity"] in {"info", "warning", "critical"}
        assert alert["annotations"].keys() == {"summary", "description"}
    assert alerts.keys() >= {
        "VxlaneAgentDown",
        "VxlaneBypassedShareDrops",
        "VxlaneMapNearlyFull",
        "VxlaneSourceStale",
    }


def test_a_share_that_is_lowered_on_purpose_is_no_alert() -> None:
    """Nodes that the cluster wants otherwise are left out. Minutes without traffic have no share:
    one of 0/0 would make the average of a day none.
    """
    told = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules()}
    assert 'unless on (instance) vxlane_info{wanted!="on"}' in told["VxlaneBypassedShareDrops"]
    assert re.search(r"/\s*\(.*> 0\)\s*$", told["instance:vxlane_bypassed:ratio_rate5m"], re.DOTALL)


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """Its data source is chosen, its panels have ids of their own and do not overlap."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    chosen = {"type": "prometheus", "uid": "$datasource"}
    targets = [target for panel in panels for target in panel["targets"]]
    assert all(one["datasource"] == chosen for one in [*panels, *targets])
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_a_verdict_is_explained_where_it_is_said_to_be() -> None:
    """Whoever reads of verdicts or identity checks is led to their pages."""
    told = [rule["annotations"]["description"] for rule in rules() if "verdict" in str(rule)]
    told += [panel.get("description", "") for panel in dashboard()["panels"]]
    named = [text for text in told if "docs/" in text]
    assert named
    assert all("docs/verdicts" in text for text in named)
