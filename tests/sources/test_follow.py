# SPDX-License-Identifier: Apache-2.0
"""The thread that never gives up, and the table it keeps."""

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from following import until

from vxlane.errors import SourceError
from vxlane.sources.follow import Follower, Reconciler, Timing
from vxlane.sources.http import HttpError
from vxlane.sources.model import Node, Problem
from vxlane.sources.snapshot import NOTHING_READ
from vxlane.sources.table import NodeTable

SHORT = Timing(shortest=0.02, longest=0.05)


def node(number: int) -> Node:
    """Some node."""
    mac = f"0e:00:00:00:00:{number:02x}"
    cidr = IPv4Network(f"10.42.{number}.0/24")
    return Node(f"n{number}", IPv4Address(f"192.168.1.{number}"), cidr, mac)


def test_waits_double_with_jitter_up_to_the_longest() -> None:
    """The n-th wait lies between half and the whole of min(longest, shortest * 2^n), and in the
    first minute the longest is 5 s.
    """
    for _ in range(50):
        most_each = (1, 2, 4, *[5] * 11, 10, 20, 30, 30)
        waits = list(itertools.islice(Timing(shortest=1, longest=30).waits(), len(most_each)))
        for wait, most in zip(waits, most_each, strict=True):
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


class Attempts:
    """What a reconciler runs: fails until it is told not to, and notes when it ran."""

    def __init__(self, error: Exception | None = None) -> None:
        self.at: list[float] = []
        self.complaints: list[str] = []
        self.error = error

    def __call__(self) -> float | None:
        """One attempt."""
        self.at.append(time.monotonic())
        if self.error:
            raise self.error
        return None


@contextlib.contextmanager
def reconciling(attempts: Attempts, timing: Timing) -> Iterator[Reconciler]:
    """A started reconciler."""
    made = Reconciler("test", attempts, complain=attempts.complaints.append, timing=timing)
    made.start()
    yield made
    made.close()


def test_a_request_ends_the_back_off() -> None:
    """After failures whose back-off has grown to seconds a request is tried within the shortest."""
    attempts = Attempts(SourceError("down"))
    timing = Timing(shortest=0.05, longest=60.0)
    with reconciling(attempts, timing) as reconciler:
        reconciler.request()
        until(lambda: len(attempts.at) == 5)
        attempts.error = None
        reconciler.request()
        until(lambda: len(attempts.at) == 6)
        # The back-off was at 0.4 to 0.8 s; within that, how soon it is depends on the machine.
        assert attempts.at[5] - attempts.at[4] < 0.4
        until(lambda: attempts.complaints[-1] == "")


def test_a_request_does_not_cut_retry_after_short() -> None:
    """What the server's Retry-After asks for is waited out, whatever is requested meanwhile."""
    attempts = Attempts(HttpError("u", 429, words="w", retry_after=0.4))
    with reconciling(attempts, Timing(shortest=0.05)) as reconciler:
        reconciler.request()
        until(lambda: attempts.at)
        reconciler.request()
        until(lambda: len(attempts.at) == 2)
        assert attempts.at[1] - attempts.at[0] >= 0.4


def test_a_success_resets_the_back_off() -> None:
    """The first failure after a success is tried again as soon as the very first."""
    attempts = Attempts(SourceError("down"))
    with reconciling(attempts, Timing(shortest=0.05, longest=60.0)) as reconciler:
        reconciler.request()
        until(lambda: len(attempts.at) == 4)
        attempts.error = None
        reconciler.request()
        until(lambda: attempts.complaints[-1] == "")
        attempts.error = SourceError("down again")
        failed = len(attempts.at)
        reconciler.request()
        until(lambda: len(attempts.at) == failed + 2)
        # Without the reset it is 0.4 s at least; with it 0.05 s, and what a busy machine adds.
        assert attempts.at[failed + 1] - attempts.at[failed] < 0.4


def test_requests_in_a_row_are_attempts_apart() -> None:
    """However often it is requested, between two attempts lies the shortest back-off."""
    attempts = Attempts()
    with reconciling(attempts, Timing(shortest=0.1)) as reconciler:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            reconciler.request()
            time.sleep(0.001)
    assert 4 <= len(attempts.at) <= 6


def test_a_table_is_empty_until_it_is_read() -> None:
    """Before the first list a snapshot is NOTHING_READ with the error, whatever else is known."""
    table = NodeTable("n1")
    assert table.snapshot() == NOTHING_READ
    table.fail("down")
    table.complain("can't announce")
    snapshot = table.snapshot()
    assert (snapshot.peers, snapshot.problems, snapshot.error) == ((), (), "down")
    table.close()


def test_a_table_wakes_its_reader_for_changes_only() -> None:
    """The eventfd is set by changes, and by an error that is new or over, not by repetitions."""
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
    table.fail("down")
    assert not woken()
    table.fail("401")
    assert woken()
    assert table.snapshot().error == "401"
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


def test_two_subnets_of_one_address_are_two_nodes() -> None:
    """In etcd, where an address is a node's name, a second subnet of it is served as well."""
    table = NodeTable("n1")
    first, second = node(2), dataclasses.replace(node(2), pod_cidr=IPv4Network("10.42.9.0/24"))
    table.replace({"a": node(1), "b": first, "c": second})
    peers = table.snapshot().peers
    assert [peer.pod_cidr for peer in peers] == [first.pod_cidr, second.pod_cidr]
    assert len({peer.name for peer in peers}) == 2
    table.put("b", None)
    [left] = table.snapshot().peers
    assert left.pod_cidr == second.pod_cidr
    table.close()
