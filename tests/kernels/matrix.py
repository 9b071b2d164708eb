# SPDX-License-Identifier: Apache-2.0
"""`scripts/test --kernels [--full] [SUITE ...]`: the datapath on other kernels and other bccs.

Prepares a disk of each suite, compiles and loads with its bcc at native speed, and runs the tests
named here on its kernel. Ends with 1 if anything failed; the table goes to standard output, for
docs/compatibility.md.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import image
import machine
import pair
from image import Image, MatrixError
from suites import KEYS, SUITES, Suite

from vxlane.util.release import OLDEST, is_supported

CACHE = image.CHECKOUT / ".kernels"
NATIVE = ("tests/datapath/test_load.py",)
TESTS = (
    "tests/datapath/test_attach.py",
    "tests/datapath/test_attach_beside_others.py",
    "tests/datapath/test_super_packets.py",
    "tests/datapath/test_wire.py",
    "tests/datapath/test_traffic.py",
    "tests/datapath/test_tables.py",
    "tests/probes",
)
"""Real devices and packets, and no lab: its agents and CNI plugins take an emulated processor five
minutes to start."""
AT_ONCE = 2
"""Machines at a time: each has one processor."""

_PYTEST = ".venv/bin/python -m pytest -q --color=no --tb=short -o timeout=900 -rfE"
AGAIN = "running again what failed above"
JOB = f"""{_PYTEST} {" ".join(TESTS)} && exit 0
echo "{AGAIN}"
{_PYTEST} --last-failed --last-failed-no-failures none {" ".join(TESTS)}
"""
REFUSED = f"the programs need Linux {OLDEST} or later, this is"
REFUSAL_JOB = f"""
.venv/bin/vxlane lab up --nodes 1 --pods 0
cat /run/vxlane-lab/lab*.log /run/vxlane-lab/lab/node1/agent.log >/tmp/log 2>/dev/null
grep -m 1 "{REFUSED}" /tmp/log || {{ tail -n 20 /tmp/log; exit 1; }}
"""
_COUNTS = re.compile(r"^=* ?(\d+ [a-z].*) in [\d.]+s\b", re.MULTILINE)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?\r?$", re.MULTILINE)

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Row:
    """What one kernel did."""

    suite: Suite
    kernel: str
    versions: str
    result: str
    failures: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns of the table."""
        return self.suite.title, self.kernel, self.versions, self.result


def main() -> None:
    """Run the matrix; MatrixError in its own words."""
    parser = argparse.ArgumentParser(prog="scripts/test --kernels", description=__doc__)
    parser.add_argument("--full", action="store_true", help="also two machines with a wire")
    names = [suite.name for suite in SUITES]
    parser.add_argument("suite", nargs="*", help=f"of {', '.join(names)}; all without a word")
    options = parser.parse_args()
    if unknown := set(options.suite) - set(names):
        parser.error(f"there is no suite {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        sys.exit("matrix: needs root to make disks; run it again with sudo")
    wanted = [suite for suite in SUITES if not options.suite or suite.name in options.suite]
    try:
        with Alone():
            failures = _matrix(wanted, is_full=options.full)
    except MatrixError as error:
        sys.exit(f"matrix: {error}")
    sys.exit(1 if failures else 0)


class Alone:
    """The cache is one run's at a time."""

    def __enter__(self) -> None:
        CACHE.mkdir(exist_ok=True)
        self._lock = os.open(CACHE, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MatrixError(f"another run uses {CACHE}; wait for its end") from None
        image.remove_halves(CACHE)

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)


def _matrix(wanted: list[Suite], *, is_full: bool) -> list[str]:
    """The failures."""
    images = prepare(wanted)
    rows = together(_natively, images)
    jobs = [(one, release) for one in images for release in one.releases]
    rows += together(lambda job: _on_its_kernel(*job), jobs)
    if is_full:
        rows += [_pair(one) for one in images]
    print(table(rows))
    failures = [f"{row.kernel}: {name}" for row in rows for name in row.failures]
    for failure in failures:
        say(failure)
    return failures


def prepare(wanted: list[Suite]) -> list[Image]:
    """The disks; Debian's first, for the keys of Ubuntu's packages come by one of them."""
    debian = [suite for suite in wanted if suite.vendor == "Debian"]
    others = [suite for suite in wanted if suite.vendor != "Debian"]
    if others and KEYS not in debian:
        debian.append(KEYS)
    say(f"disks of {', '.join(suite.name for suite in (*debian, *others))}, in {CACHE}")
    made = [
        *together(lambda suite: image.prepare(suite, CACHE), debian),
        *together(lambda suite: image.prepare(suite, CACHE), others),
    ]
    return [one for one in made if one.suite in wanted]


def together(function: Callable[..., Made], inputs: Iterable[object]) -> list[Made]:
    """Call with each input, AT_ONCE at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(function, inputs))


def _natively(one: Image) -> Row:
    """Compile and load with the suite's bcc on this kernel."""
    image.put_checkout(one.root)
    job = f"cd /vxlane && {_PYTEST} -p no:cacheprovider {' '.join(NATIVE)}"
    done = subprocess.run(
        one.enter("sh", "-c", job), check=False, capture_output=True, text=True, errors="replace"
    )
    log = CACHE / "machines" / f"{one.suite.name}-native.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    python = one.enter("/vxlane/.venv/bin/python", "-c", "import bcc; print(bcc.__version__)")
    versions = f"bcc {image.run(python).strip()}"
    row = _row(one, f"{os.uname().release} (this machine)", versions, done.stdout)
    say(" | ".join(row.cells))
    return row


def _on_its_kernel(one: Image, release: str) -> Row:
    """The tests on one kernel; on one that is too old, how it is refused."""
    is_refused = not is_supported(release)
    job = REFUSAL_JOB if is_refused else JOB
    outcome = machine.run(one, release, job, CACHE / "machines" / release)
    versions = _versions(outcome)
    if not is_refused:
        row = _row(one, release, versions, outcome.text)
    elif outcome.said.get("status") == "0":
        row = Row(one.suite, release, versions, "refused, with the reason")
    else:
        row = Row(one.suite, release, versions, "failed", ("it is not refused with the reason",))
    say(f"{' | '.join(row.cells)}, after {outcome.seconds:.0f} s")
    return row


def _pair(one: Image) -> Row:
    """Two machines with a wire, vxlane on one of them."""
    outcome = pair.run(one, CACHE / "machines" / f"{one.releases[0]}-pair")
    problems = pair.problems(outcome)
    return Row(one.suite, one.releases[0], "two machines, virtio", pair.words(outcome), problems)


def _versions(outcome: machine.Outcome) -> str:
    said = outcome.said
    return ", ".join(f"{name} {said.get(name, '?')}" for name in ("bcc", "python", "iproute2"))


def _row(one: Image, kernel: str, versions: str, text: str) -> Row:
    """By pytest's last line, which is that of the second attempt if there was one."""
    counts = _COUNTS.findall(text)
    if not counts:
        return Row(one.suite, kernel, versions, "did not end", ("did not end",))
    result = counts[0] if len(counts) == 1 else f"{counts[0]}; these once more: {counts[-1]}"
    _, again, last = text.rpartition(AGAIN)
    if again and not _COUNTS.search(last):
        failures = ("did not end once more",)
    else:
        failures = tuple(_FAILED.findall(last))
    return Row(one.suite, kernel, versions, result, failures)


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown."""
    head = ("distribution", "kernel", "with", "result")
    lines = [head, tuple("---" for _ in head), *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def say(words: str) -> None:
    """Tell of progress."""
    print(f"matrix: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
