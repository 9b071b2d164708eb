# SPDX-License-Identifier: Apache-2.0
"""Tables on a terminal, and in a pipe."""

from __future__ import annotations

import pytest

from vxlane.show.table import pairs, table, without_middle

LONG = "production/checkout-payments-worker-7f9c6d5b44-x2x7q"
SENTENCE = "the way is narrower than pods take it for, and no answer came of any larger one"
RATES = ("POD", "OUT PACKETS/s", "OUT BYTES/s", "IN PACKETS/s", "IN BYTES/s")
BUSY = [[LONG, 1234567, 1234567890123, 9876543, 1234567890], ["short", 1, 2, 3, 4]]
RESULTS = ("TO", "RESULT", "DETAIL")
FAILED = [["10.42.2.9", "failed", SENTENCE]]


@pytest.mark.parametrize("width", [80, 90])
def test_a_name_loses_its_middle(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """A row of figures that is too wide keeps them, and both ends of the name."""
    monkeypatch.setenv("COLUMNS", str(width))
    shown = table(RATES, BUSY, cut="POD").splitlines()
    assert max(map(len, shown)) == width
    assert shown[1].startswith("produ")
    assert "…" in shown[1]
    assert shown[1].split()[0].endswith("x2x7q")
    assert shown[1].endswith("1,234,567,890")


def test_a_sentence_goes_on_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence in the last column is wrapped within it."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = table(RESULTS, FAILED).splitlines()
    assert max(map(len, shown)) <= 80
    assert len(shown) == 3
    assert shown[2].index(shown[2].strip()[0]) == shown[0].index("DETAIL")
    assert " ".join(line[shown[0].index("DETAIL") :] for line in shown[1:]) == SENTENCE


def test_a_pipe_gets_all_of_a_row_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may search it for a name or a sentence."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("vxlane.util.terminal.sys.__stdout__", None)
    assert table(RATES, BUSY, cut="POD").splitlines()[1].startswith(f"{LONG}  ")
    assert table(RESULTS, FAILED).splitlines()[1].endswith(f"  {SENTENCE}")


def test_each_sentence_of_a_list_has_its_line() -> None:
    """Problems of a node do not run together, and none are a dash, as other things that are not."""
    shown = pairs({"pid": "7", "problems": [SENTENCE, LONG], "failures": []}).splitlines()
    assert shown == [
        "pid       7",
        f"problems  {SENTENCE}",
        f"          {LONG}",
        "failures  -",
    ]


def test_what_fits_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut in a table that fits."""
    monkeypatch.setenv("COLUMNS", "80")
    assert table(("POD",), [[LONG]], cut="POD") == f"POD\n{LONG}"
    assert without_middle("abcdefghij", 10) == "abcdefghij"
    assert without_middle("abcdefghij", 7) == "ab…ghij"
