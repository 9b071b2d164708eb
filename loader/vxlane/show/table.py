# SPDX-License-Identifier: Apache-2.0
"""Rows as text for people, with aligned columns and numbers to the right."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vxlane.util.terminal import output_width

_GAP = "  "
_NARROWEST = 12
"""Columns that a name or a sentence keeps at least."""
_SENTENCE = 30
"""Columns of a cell that may go on in the next line."""


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, cut: str | None = None
) -> str:
    """One line for each row, under `header`. A column with numbers is aligned to the right.

    What is wider than the terminal is made narrower where that costs no figure: names in the column
    `cut` lose their middle, and sentences in the last column go on in the next line. A pipe or a
    file gets each row whole, in one line, for somebody may search it.
    """
    kept = [list(row) for row in rows]
    right = [any(_is_number(row[column]) for row in kept) for column in range(len(header))]
    lines = [list(header), *([_text(cell) for cell in row] for row in kept)]
    if width := output_width():
        lines = _fitted(lines, width, header.index(cut) if cut in header else None)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        _GAP.join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _fitted(lines: list[list[str]], width: int, cut: int | None) -> list[list[str]]:
    """The lines in `width` columns, if that can be; `cut` is the place of the column of names."""
    if cut is not None and (excess := _excess(lines, width)) > 0:
        longest = max(_NARROWEST, max(len(line[cut]) for line in lines) - excess)
        for line in lines:
            line[cut] = without_middle(line[cut], longest)
    if (excess := _excess(lines, width)) > 0 and max(len(line[-1]) for line in lines) > _SENTENCE:
        return list(_wrapped(lines, excess))
    return lines


def without_middle(name: str, width: int) -> str:
    """A name in `width` columns: pods of one deployment differ in its last letters."""
    if len(name) <= width:
        return name
    begin = (width - 1) // 3
    return f"{name[:begin]}…{name[begin + 1 - width :]}"


def _excess(lines: Sequence[Sequence[str]], width: int) -> int:
    """Columns by which the table is wider than `width`."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return sum(widths) + len(_GAP) * (len(widths) - 1) - width


def _wrapped(lines: Iterable[Sequence[str]], excess: int) -> Iterator[list[str]]:
    """With the last column's sentences in so many lines that `excess` columns are saved."""
    kept = list(lines)
    width = max(_NARROWEST, max(len(line[-1]) for line in kept) - excess)
    for *before, last in kept:
        first, *rest = textwrap.wrap(last, width, break_long_words=False) or [""]
        yield [*before, first]
        for more in rest:
            yield [*([""] * len(before)), more]


def columns(
    keys: Sequence[str], listed: Iterable[Mapping[str, object]], *, cut: str | None = None
) -> str:
    """Some keys of like documents, each as a column; `cut` as of `table`."""
    header = [key.upper().replace("_", " ") for key in keys]
    return table(header, [[row[key] for key in keys] for row in listed], cut=cut)


def pairs(values: Mapping[str, object]) -> str:
    """One line for each key, with aligned values. Each item of a list has a line of its own."""
    width = max(map(len, values), default=0)
    lines = []
    for key, value in values.items():
        name = key.replace("_", " ")
        for item in (value or [None]) if isinstance(value, list) else [value]:
            lines.append(f"{name.ljust(width)}{_GAP}{_text(item)}")
            name = ""
    return "\n".join(lines)


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, (list, tuple)):
        return " ".join(map(_text, cell))
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
