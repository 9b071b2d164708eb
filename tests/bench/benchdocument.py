# SPDX-License-Identifier: Apache-2.0
"""A small document of a run, as the bench would write it."""

from __future__ import annotations

from vxlane.bench import document
from vxlane.bench.model import Row
from vxlane.lab.figure import Better, Figure

THROUGHPUT = Figure("throughput", "Gbit/s", Better.MORE)
P50 = Figure("p50", "us", Better.LESS)


def row(values, figure=THROUGHPUT, place="between nodes", work="TCP, 1 flow"):
    """One row of a document."""
    return document.row_document(Row(place, work, "two CPUs", figure, values))


def run(*rows, **parts):
    """A whole document of these rows."""
    return {
        "version": document.VERSION,
        "began": "2026-11-28 12:00 UTC",
        "command": ["vxlane", "bench", "--work", "<b>"],
        "environment": {"kernel": "6.18", "CPU": "2 x <i>one</i>"},
        "method": {"rounds": 5, "seconds": 1.0, "depth": "default"},
        "paths": {"stock": "as flannel leaves it", "bypass": "vxlane"},
        "rows": list(rows),
        "programs": [],
        "growth": [],
        "not_run": [],
        "commands": {"TCP, 1 flow: stock": ["iperf3 --server", "iperf3 --client 10.42.2.2 & <x>"]},
        "failures": [],
        **parts,
    }
