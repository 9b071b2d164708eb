# SPDX-License-Identifier: Apache-2.0
"""Kernel, helpers and compiler. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vxlane.doctor.facts import Facts
from vxlane.doctor.findings import Finding, fail, ok, warn
from vxlane.probes.helpers import Answer
from vxlane.util.release import OLDEST, is_supported

_UPGRADE = "apt-get install linux-image-amd64    # or your distribution's newest kernel"


def version(facts: Facts) -> Iterator[Finding]:
    """The kernel is one that vxlane supports."""
    release = facts.kernel.release
    if not is_supported(release):
        meaning = f"vxlane needs Linux {OLDEST} or later; older ones lack helpers that it calls"
        yield fail("kernel", f"Linux {release}", meaning, _UPGRADE)
    else:
        yield ok("kernel", f"Linux {release}")


def helpers(facts: Facts) -> Iterator[Finding]:
    """What the programs use was tried in a network namespace of its own, and works."""
    answers = {probe.name: probe.answer for probe in facts.kernel.probes}
    is_bad = False
    for probe in facts.kernel.probes:
        if probe.answer is Answer.UNKNOWN:
            is_bad = True
            meaning = f"whether this holds is not known: {probe.meaning}"
            yield warn("helpers", f"{probe.name}: {probe.reason}", meaning, "sudo vxlane doctor")
        elif probe.answer is Answer.NO and probe.is_needed:
            is_bad = True
            meaning = f"nothing can be bypassed without it: {probe.meaning}"
            yield fail("helpers", f"{probe.name}: {probe.reason}", meaning, _UPGRADE)
    if answers.get("tcx") is answers.get("clsact") is Answer.NO:
        is_bad = True
        meaning = "programs can't be attached to any device, so nothing is bypassed"
        yield fail(
            "helpers", "neither TCX nor clsact works", meaning, "modprobe sch_ingress cls_bpf"
        )
    if not is_bad:
        lacks = [name for name, answer in answers.items() if answer is Answer.NO]
        without = f"; does without {', '.join(lacks)}" if lacks else ""
        yield ok(
            "helpers", f"{len(answers) - len(lacks)} of {len(answers)} work when tried{without}"
        )


def compiler(facts: Facts) -> Iterator[Finding]:
    """The agent has its programs, or can compile them, when it starts the next time."""
    if facts.kernel.has_compiled:
        yield ok("compiler", "none is needed: vxlane came with compiled programs")
        return
    meaning = "the agent can't compile its programs, and then makes the kernel path only"
    if not facts.kernel.has_bcc:
        says = "bcc is missing (PyPI's bcc is another project)"
        yield fail("compiler", says, meaning, "apt-get install python3-bpfcc")
    elif not facts.kernel.headers:
        yield fail("compiler", "no kernel headers", meaning, "apt-get install linux-libc-dev")
    else:
        yield ok("compiler", f"bcc, and {facts.kernel.headers}")
