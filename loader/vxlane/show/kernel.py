# SPDX-License-Identifier: Apache-2.0
"""What this node's kernel was seen to do, as a document."""

from __future__ import annotations

import os

from vxlane.probes import known
from vxlane.probes.helpers import Answer
from vxlane.show.documents import Json


def kernel() -> Json:
    """The kernel and each thing that was tried on it."""
    return {
        "release": os.uname().release,
        "boot_id": known.boot_id(),
        "probes": [
            {
                "probe": each.name,
                "answer": each.answer.value,
                "needed": each.is_needed,
                "meaning": each.meaning,
                "reason": each.reason or None,
            }
            for each in known.answers()
        ],
    }


def is_enough(document: Json) -> bool:
    """Whether the kernel does all that a bypass needs, as far as was seen."""
    return all(each["answer"] == Answer.YES.value for each in document["probes"] if each["needed"])
