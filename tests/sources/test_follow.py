# SPDX-License-Identifier: Apache-2.0
"""The thread that never gives up, and the table it keeps."""

import itertools
import os
import time
from ipaddress import IPv4Address, IPv4Network

from following import until

from vxlane.errors import SourceError
from vxlane.sources.follow import Follower, NodeTable, Timing
from vxlane.sources.http import HttpError
from vxlane.sources.model import Node, Problem
from vxlane.sources.snapshot import NOTHING_READ

SHORT = Timing(shortest=0.02, longest=0.05)


def node(number: int) -> Node:
    """Some node."""
    mac = f"0e:00:00:00:00:{number:02x}"
    cidr = IPv4Network(f"10.42.{number}.0/24")
    return Node(f"n{number}", IPv4Address(f"192.168.1.{number}"), cidr, mac)


def test_waits_double_with_jitter_up_to_the_longest() -> None:
    """The n-th wait lies between half and the whole of min(longest, shortest * 2^n)."""
    for _ in range(50):
        waits = list(itertools.islice(Timing(shortest=1, longest=30).waits(), 8))
        for wait, most in zip(waits, (1, 2, 4, 8, 16, 30, 30, 30), strict=True):
            assert most / 2 <= wait <= most
    assert len({next(Timing().waits()) for _ in range(20)}) > 10


def test_no_failure_ends_the_thread() -> None:
    """Errors that were foreseen and those that were not are reported, and the rounds go on."""
    errors = iter([SourceError("known"), ValueError("unknown"), HttpError("u", 500, words="w")])
    reports: list[str] = []
    rounds: list[float] = []

    def round_() -> None:
        rounds.append(time.monotonic())
        if error := next(errors, None):
            raise error

    follower = Follower("test", round_, failed=reports.append, timing=SHORT)
    follower.start()
    until(lambda: len(rounds) > 5)
    follower.close()
    assert reports[0] == "known"
    assert "unexpected ValueError: unknown" in reports[1]
    assert "500" in reports[2]
    assert len(reports) == 3


def test_a_round_that_ends_at_once_is_not_run_in_a_tight_loop() -> None:
    """A server that closes every stream immediately is asked no more often than the back-off."""
    rounds: list[float] = []
    follower = Follower(
        "test", lambda: rounds.append(time.monotonic()), failed=rounds.clear, timing=SHORT
    )
    follower.start()
    time.sleep(0.5)
    follower.close()
    assert len(rounds) < 30


def test_a_roll_is_empty_until_it_is_read() -> None:
    """Before the first list a snapshot is NOTHING_READ with the error, whatever else is known."""
    table = NodeTable("n1")
    assert table.snapshot() == NOTHING_READ
    table.fail("down")
    table.complain("can't announce")
    snapshot = table.snapshot()
    assert (snapshot.peers, snapshot.problems, snapshot.error) == ((), (), "down")
    table.close()


def test_a_roll_wakes_its_reader_for_news_only() -> None:
    """The eventfd is set by changes and by an error's coming and going, not by repetitions."""
    table = NodeTable("n1")

    def woken() -> bool:
        try:
            return bool(os.eventfd_read(table.changed))
        except BlockingIOError:
            return False

    table.replace({})
    assert woken()
    table.replace({})
    table.confirm()
    assert not woken()
    table.put("n2", node(2))
    assert woken()
    table.put("n2", node(2))
    table.put("n3", None)
    assert not woken()
    table.fail("down")
    assert woken()
    table.fail("still down")
    assert not woken()
    table.confirm()
    assert woken()
    table.close()
    table.close()
    table.put("n4", node(4))


def test_a_bad_entry_leaves_the_nodes_last_good_one_in_force() -> None:
    """A node whose annotations turn to garbage stays as it was, and is reported."""
    table = NodeTable("n1")
    table.replace({"n1": node(1), "n2": node(2)})
    table.snapshot()
    table.put("n2", Problem("n2", "garbage"))
    snapshot = table.snapshot()
    assert snapshot.peers == (node(2),)
    assert snapshot.problems == (Problem("n2", "garbage"),)
    table.put("n2", None)
    assert table.snapshot().peers == ()
    table.close()
