# SPDX-License-Identifier: Apache-2.0
"""Rows as text for people, with aligned columns and numbers to the right. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

_GAP = "  "


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """One line for each row, under `header`. A column with numbers is aligned to the right."""
    kept = [list(row) for row in rows]
    right = [any(_is_number(row[column]) for row in kept) for column in range(len(header))]
    lines = [list(header), *([_text(cell) for cell in row] for row in kept)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        _GAP.join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def columns(keys: Sequence[str], listed: Iterable[Mapping[str, object]]) -> str:
    """Some keys of like documents, each as a column."""
    header = [key.upper().replace("_", " ") for key in keys]
    return table(header, [[row[key] for key in keys] for row in listed])


def pairs(values: Mapping[str, object]) -> str:
    """One line for each key, with aligned values."""
    width = max(map(len, values), default=0)
    return "\n".join(
        f"{key.replace('_', ' ').ljust(width)}{_GAP}{_text(value)}" for key, value in values.items()
    )


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
