# SPDX-License-Identifier: Apache-2.0
"""Fixtures that all tests share: labs, namespaces, and what a skip means.

    def test_something(lab):
        '''A fact.'''
        with lab.verdicts("node1") as seen:
            lab.exec("node1-pod1", "ping", "-c", "3", lab.address("node2-pod1"))
        assert seen["from_pod", "encapsulated"] > 0

Every name made here holds the pid of the test run: runs don't meet, and a run removes what dead
ones left.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import leftovers
import machinecan
import pytest
from labundertest import LabUnderTest

from vxlane.lab import lab as labs
from vxlane.lab import namespaces

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
RUN = f"vxtest-{os.getpid()}"
_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer --full and --fast."""
    parser.addoption("--full", action="store_true", help="also run the long variants")
    parser.addoption("--fast", action="store_true", help="only what needs no prepared machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What the options leave out is not there at all: a skip would be a failure in CI."""
    left_out = [item for item in items if not _is_wanted(item, config)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _is_wanted(item: pytest.Item, config: pytest.Config) -> bool:
    if config.getoption("--fast") and "_machine" in getattr(item, "fixturenames", ()):
        return False
    return config.getoption("--full") or not item.get_closest_marker("full")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what this kernel lacks."""
    machinecan.check(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a skipped test is a failed one, unless the kernel lacks what it is about."""
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """So is a skipped file of tests."""
    return _judged((yield))


def _judged(report: Report) -> Report:
    is_excused = hasattr(report, "wasxfail") or machinecan.is_lack(report)
    if report.skipped and not is_excused and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def _machine() -> None:
    """Root, what scripts/setup --test installs, and no leftovers of test runs that died.

    --fast leaves out every test that uses this fixture, by whatever other fixture.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root for network namespaces; run scripts/test with sudo")
    leftovers.remove("vxtest")


@pytest.fixture(scope="session")
def lab(_machine: None) -> Iterator[LabUnderTest]:
    """One lab for all tests that only send traffic: node3 is kernel-only, two pods on each node."""
    yield LabUnderTest(labs.up(RUN, nodes=3, pods_per_node=2, kernel_only=1))
    labs.down(RUN)


@pytest.fixture
def make_lab(_machine: None) -> Iterator[Callable[..., LabUnderTest]]:
    """Make labs for one test alone, with the arguments of `vxlane.lab.lab.up`."""
    with _own_labs() as make:
        yield make


@pytest.fixture(scope="module")
def make_module_lab(_machine: None) -> Iterator[Callable[..., LabUnderTest]]:
    """Make labs for the tests of one file, which leave them as they were."""
    with _own_labs() as make:
        yield make


@contextlib.contextmanager
def _own_labs() -> Iterator[Callable[..., LabUnderTest]]:
    made: list[str] = []

    def make(**options: Any) -> LabUnderTest:
        made.append(f"{RUN}-own{next(_numbers)}")
        return LabUnderTest(labs.up(made[-1], **options))

    yield make
    for name in made:
        labs.down(name)


@pytest.fixture
def make_netns(_machine: None) -> Iterator[Callable[[str], str]]:
    """Make bare namespaces for one test; give a word, get the name that holds it."""
    made: list[str] = []

    def make(word: str) -> str:
        name = f"{RUN}-bare-{word}"
        namespaces.create(name)
        made.append(name)
        return name

    yield make
    namespaces.remove(made)
