# SPDX-License-Identifier: Apache-2.0
"""Tables in 80 columns."""

from __future__ import annotations

from vxlane.show.table import table, without_middle

LONG = "production/checkout-payments-worker-7f9c6d5b44-x2x7q"
SENTENCE = "the way is narrower than pods take it for, and no answer came of any larger one"


def test_a_name_loses_its_middle() -> None:
    """A row of figures that is too wide keeps them, and both ends of the name."""
    rows = [[LONG, 1234567, 1234567890123, 9876543, 1234567890], ["short", 1, 2, 3, 4]]
    header = ("POD", "OUT PACKETS/s", "OUT BYTES/s", "IN PACKETS/s", "IN BYTES/s")
    shown = table(header, rows, cut="POD").splitlines()
    assert max(map(len, shown)) == 80
    assert shown[1].startswith("produ…")
    assert shown[1].split()[0].endswith("x2x7q")
    assert shown[1].endswith("1,234,567,890")


def test_a_sentence_goes_on_below() -> None:
    """A sentence in the last column is wrapped within it."""
    shown = table(("TO", "RESULT", "DETAIL"), [["10.42.2.9", "failed", SENTENCE]]).splitlines()
    assert max(map(len, shown)) <= 80
    assert len(shown) == 3
    assert shown[2].index(shown[2].strip()[0]) == shown[0].index("DETAIL")
    assert " ".join(line[shown[0].index("DETAIL") :] for line in shown[1:]) == SENTENCE


def test_what_fits_is_left_as_it_is() -> None:
    """Nothing is cut in a table that fits."""
    assert table(("POD",), [[LONG]], cut="POD") == f"POD\n{LONG}"
    assert without_middle("abcdefghij", 10) == "abcdefghij"
    assert without_middle("abcdefghij", 7) == "ab…ghij"
