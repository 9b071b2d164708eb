# SPDX-License-Identifier: Apache-2.0
"""The HTML file: one that a browser can read without anything else."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import browser
import pytest
from benchdocument import P50, row, run

from vxlane.bench import plot
from vxlane.bench.page import page

VOID = {"meta", "circle", "rect", "line"}
"""Elements without an end: HTML's own, and SVG's that the plots close in place."""
FASTER = {"stock": [1.0] * 5, "bypass": [1.2, 1.25, 1.3, 1.35, 1.4], "host": [2.0] * 5}
WIDE = {"stock": [1.0] * 5, "bypass": [0.2, 0.3, None, 0.9, 1.4], "device": [None] * 5}


class Reader(HTMLParser):
    """Elements as they nest; every attribute and all text."""

    # The methods are HTMLParser's, and mean what it says.
    # ruff: noqa: D102

    def __init__(self):
        super().__init__()
        self.open, self.found, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def whole():
    """A page with each of its parts."""
    cost = {"path": "bypass", "program": "from_pod", "packets": "UDP", "ns": 310.0}
    cost |= {"runs": 12000, "how": "run statistics"}
    document = run(
        row(FASTER),
        row(WIDE, P50, place="on one node"),
        programs=[cost],
        not_run=[{"what": "path flowtable", "why": "no such kernel"}],
        failures=["round 1: <script>"],
    )
    return page(document)


def read(text):
    """What the elements of a page are, and say."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


@pytest.fixture
def shown(whole):
    """The same, read."""
    return read(whole)


def test_its_elements_nest(shown):
    """Every element is closed where it has to be."""
    assert shown.open == []
    assert shown.found[:2] == ["html", "head"]


def test_it_needs_nothing_else(shown):
    """No script, no picture, no link, and no address of anything outside."""
    assert not {"script", "img", "link", "iframe", "object", "use"} & set(shown.found)
    assert not {"src", "href", "xlink:href", "onload"} & {name for name, _ in shown.attributes}
    assert "url(" not in " ".join(shown.text)


def test_what_it_quotes_is_text(shown):
    """Command lines, machines and failures are shown as they are, not read as elements."""
    text = " ".join(shown.text)
    assert "iperf3 --client 10.42.2.2 & <x>" in text
    assert "2 x <i>one</i>" in text
    assert "round 1: <script>" in text


def test_it_has_every_row_and_part(shown):
    """Each place has its plot and its values; programs, environment and commands are there."""
    text = " ".join(shown.text)
    assert shown.found.count("svg") == 2 * 2
    for word in ("Between nodes", "On one node", "1.30x", "from_pod", "no such kernel", "6.18"):
        assert word in text


@pytest.mark.usefixtures("_machine")  # Chromium is a package of the distribution
def test_a_browser_shows_its_figures(whole, tmp_path):
    """Chromium, without a network, has each figure where the page puts it, and no complaint."""
    file = tmp_path / "run.html"
    file.write_text(whole, encoding="utf-8")
    seen = read(browser.rendered(file, tmp_path))
    words = [word for word in seen.text if word.strip()]
    assert [word for word in words if word.endswith("x stock")] == ["1.30x stock"]
    assert "0.65x host" in words
    row = words.index("from_pod")
    assert words[row - 1 : row + 5] == [
        *("bypass", "from_pod", "UDP", "310", "12,000", "run statistics")
    ]
    assert seen.found.count("svg") == 2 * 2
    assert "round 1: <script>" in words


def test_no_result_is_a_hollow_dot():
    """An unclear ratio is drawn hollow and without a number beside it."""
    clear, unclear = plot.ratios([row(FASTER)]), plot.ratios([row(WIDE, P50)])
    assert 'fill="none"' not in clear
    assert 'fill="none"' in unclear
    assert "unclear, stock" in unclear
    assert plot.ratios([row({"stock": [1.0]})]) == ""


def test_red_is_what_fails_a_run():
    """A ratio below stock is red; one below host is not, for no overlay is as fast as none."""
    slower = {"stock": [2.0] * 5, "bypass": [1.0, 1.01, 1.02, 1.03, 1.04], "host": [2.0] * 5}
    assert page(run(row(slower))).count('<td class="worse">0.51x') == 1
    assert '<td class="worse">' not in page(run(row(FASTER)))


def test_dots_lie_on_their_scale():
    """A ratio of 1 is on the line of 1, and a better one is right of it."""
    drawn = plot.ratios([row({"stock": [1.0] * 5, "bypass": [1.0] * 5, "host": [0.5] * 5})])
    (line,) = re.findall(r'class="grid one" x1="([\d.]+)"', drawn)
    alike, better = re.findall(r'<circle cx="([\d.]+)"', drawn)
    assert alike == line
    assert float(better) > float(line)


def test_a_wild_row_leaves_the_others_their_place():
    """A bar that leaves the scale ends at its edge."""
    drawn = plot.ratios([row({"stock": [1.0] * 5, "bypass": [0.01, 1.0, 1.0, 50.0, 90.0]})])
    ends = [float(end) for end in re.findall(r'x[12]="([\d.]+)"', drawn)]
    assert 380 <= min(ends) < max(ends) <= 960 - 110
