# SPDX-License-Identifier: Apache-2.0
"""The terminal's tables and the page have the document's figures."""

from profilefigures import Page, figures

from vxlane.profile.page import page
from vxlane.profile.text import text


def value_at(profile, key):
    """The value at a data-key: keys of dictionaries and numbers of lists, joined by dots."""
    found = profile
    for word in key.split("."):
        found = found[int(word)] if isinstance(found, list) else found[word]
    return found


def test_the_text_has_both_paths_side_by_side():
    """Each leg with packets has a row for each path, and a histogram with both."""
    lines = text(figures()).splitlines()
    assert lines[0] == "2.5 s, pod 10.42.1.2"
    rows = [line.split() for line in lines if line.startswith("pod -> NIC ")]
    assert [row[3:5] for row in rows] == [["bypass", "8"], ["kernel", "2"]]
    (bar,) = [line for line in lines if line.split()[:3] == ["2.0", "-", "4.1"]]
    assert bar.split()[3:6] == ["7", f"|{'#' * 13}", "0"]
    assert not any(line.startswith("pod -> pod") for line in lines)
    assert "10.42.2.0/24            0                3" in lines


def test_what_is_missing_is_said():
    """Text and page say what the kernel did not give."""
    assert "missing: this kernel has no <tracepoint>" in text(figures())
    assert "this kernel has no <tracepoint>" in Page(page(figures())).texts


def test_a_profile_without_packets():
    """It is said that there were none, and neither table nor page fails."""
    profile = figures() | {"latency": figures()["latency"] | {"pod_to_nic": {}, "nic_to_tcp": {}}}
    assert "no packet of a pod was followed to an end" in text(profile)
    assert "svg" not in Page(page(profile)).tags


def test_the_page_has_the_documents_figures():
    """Every figure of the page is the document's at the place that its data-key names."""
    profile = figures()
    found = Page(page(profile)).figures
    for key, shown in found.items():
        value = value_at(profile, key)
        if key.endswith("_ns") and value is not None:
            value = round(value / 1000, 1)
        assert (None if shown == "-" else float(shown.replace(",", ""))) == value, key
    assert found["latency.pod_to_nic.bypass.packets"] == "8"
    assert found["latency.nic_to_tcp.kernel.p50_ns"] != "-"
    assert found["losses.0.unanswered_syns"] == "3"
    assert found["machine.total.softirq"] == "0.25"


def test_a_cpu_has_its_number():
    """Text and page call a CPU as the kernel does, beside one that is offline."""
    html = page(figures())
    assert "<td>2</td>" in html
    assert "<td>1</td>" not in html
    assert [line.split()[0] for line in text(figures()).splitlines() if "25.0" in line][:2] == [
        *("0", "2")
    ]


def test_the_page_needs_nothing_else():
    """No script, picture or link: plots are inline, with a bar for each power of two and path."""
    tags = Page(page(figures())).tags
    assert set(tags).isdisjoint({"script", "link", "img", "iframe", "object"})
    assert tags.count("svg") == 4
    # pod -> NIC: 2 and 1 of times, 1 and 1 of sizes; NIC -> TCP: 1 and 1.
    assert tags.count("rect") == 7


def test_the_text_fits_a_terminal(monkeypatch):
    """No line is longer than 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, text(figures()).splitlines())) <= 80
