# SPDX-License-Identifier: Apache-2.0
"""Which subnet a node takes in etcd, and when its lease is due: no etcd, a dict of one."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from vxlane.errors import SourceError
from vxlane.sources.etcd.gateway import Item
from vxlane.sources.etcd.publisher import Publisher, Term
from vxlane.sources.etcd.schema import value_of
from vxlane.sources.follow import Timing
from vxlane.sources.model import Announcement, Backend

PREFIX = "/coreos.com/network"
CONFIG = b'{"Network":"10.42.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}'
OWN = Announcement(IPv4Address("192.168.1.10"), Backend.VXLAN, 1, "12:c6:65:89:b4:e3")
OTHER = dataclasses.replace(OWN, address=IPv4Address("192.168.1.11"))
TERM = Term(ttl=100, margin=30)
QUICK = Timing(shortest=0.01, longest=0.02)


class Store:
    """Stands in for `Gateway`: keys, leases with what they have left (s), and all that was done."""

    def __init__(self) -> None:
        self.kept = {f"{PREFIX}/config": Item(f"{PREFIX}/config", CONFIG)}
        self.left: dict[int, int] = {}
        self.done: list[str] = []
        self.rivals = 0
        """How often another node takes a free key a moment before us."""
        self.broken = False
        """Whether keys can't be written."""
        self.mute = False
        """Whether the next write has no answer."""

    def have(self, number: int, own: Announcement = OWN, *, lease: int = 0, left: int = 0) -> None:
        """A node holds subnet `number`."""
        key = subnet(number)
        self.kept[key] = Item(key, value_of(own), lease)
        if lease:
            self.left[lease] = left

    def get(self, key: str) -> Item | None:
        """See `Gateway`."""
        return self.kept.get(key)

    def items(self, prefix: str) -> tuple[int, list[Item]]:
        """See `Gateway`."""
        return 1, [item for key, item in self.kept.items() if key.startswith(prefix)]

    def put(self, key: str, value: bytes, *, lease: int) -> None:
        """See `Gateway`."""
        if self.broken:
            raise SourceError("etcd is read-only")
        self.done.append(f"put {key.rpartition('/')[2]} {lease}")
        self.kept[key] = Item(key, value, lease)
        if self.mute:
            self.mute = False
            raise SourceError("the answer is lost")

    def create(self, key: str, value: bytes, *, lease: int) -> bool:
        """See `Gateway`."""
        if self.rivals:
            self.rivals -= 1
            self.kept[key] = Item(key, value_of(OTHER))
        if key in self.kept:
            return False
        self.put(key, value, lease=lease)
        return True

    def delete(self, key: str) -> None:
        """See `Gateway`."""
        self.done.append(f"delete {key.rpartition('/')[2]}")
        del self.kept[key]

    def grant(self, seconds: int) -> int:
        """See `Gateway`."""
        lease = 1000 + len(self.left)
        self.left[lease] = seconds
        return lease

    def time_to_live(self, lease: int) -> int:
        """See `Gateway`."""
        return self.left[lease]


def subnet(number: int) -> str:
    """The key of 10.42.<number>.0/24."""
    return f"{PREFIX}/subnets/10.42.{number}.0-24"


class Timed(Publisher):
    """A publisher that keeps the seconds until it reads its key again."""

    due: float | None = None

    def _reconcile(self) -> float:
        self.due = super()._reconcile()
        return self.due


class Run:
    """A publisher on a store, and what it complained of: "" for each time that all was well."""

    def __init__(self, store: Store, previous: IPv4Network | None) -> None:
        self.heard: queue.Queue[str] = queue.Queue()
        self.publisher = Timed(
            store,
            PREFIX,
            previous=previous,
            term=TERM,
            timing=QUICK,
            complain=self.heard.put,
        )

    def announce(self, own: Announcement = OWN) -> str:
        """Announce, and what is heard of it."""
        self.publisher.announce(own)
        return self.heard.get(timeout=5)


@pytest.fixture
def store() -> Store:
    """An etcd with a network and no nodes."""
    return Store()


@pytest.fixture
def run(store: Store) -> Iterator[Callable[..., Run]]:
    """Start a publisher on the store."""
    running = []

    def start(previous: str = "") -> Run:
        running.append(Run(store, IPv4Network(previous) if previous else None))
        running[-1].publisher.start()
        return running[-1]

    yield start
    for made in running:
        made.publisher.close()


def test_the_subnet_of_our_address_is_kept(store: Store, run: Callable[..., Run]) -> None:
    """A lease that still runs is left alone until its margin begins, whatever subnet.env says."""
    store.have(7, OTHER)
    store.have(9, lease=5, left=80)
    made = run("10.42.20.0/24")
    assert made.announce() == ""
    assert (made.publisher.key, store.done, made.publisher.due) == (subnet(9), [], 50)


def test_a_lease_is_left_until_its_margin(store: Store, run: Callable[..., Run]) -> None:
    """A second before its margin begins it is read again in a second."""
    store.have(9, lease=5, left=31)
    made = run()
    made.announce()
    assert (store.done, made.publisher.due) == ([], 1)


@pytest.mark.parametrize("left", [30, 29])
def test_a_lease_is_replaced_when_its_margin_begins(
    store: Store, run: Callable[..., Run], left: int
) -> None:
    """The key is put again on a new lease of the whole term."""
    store.have(9, lease=5, left=left)
    made = run()
    assert made.announce() == ""
    assert (store.done, made.publisher.due) == (["put 10.42.9.0-24 1001"], TERM.ttl - TERM.margin)
    assert store.left[1001] == TERM.ttl


def test_another_mac_is_written_at_once(store: Store, run: Callable[..., Run]) -> None:
    """What our key says is put right though its lease has long to run."""
    store.have(9, dataclasses.replace(OWN, vtep_mac="12:00:00:00:00:01"), lease=5, left=80)
    run().announce()
    assert store.kept[subnet(9)].value == value_of(OWN)


def test_the_previous_subnet_is_taken_if_it_is_free(store: Store, run: Callable[..., Run]) -> None:
    """Pods have addresses of it."""
    store.have(7, OTHER)
    made = run("10.42.20.0/24")
    made.announce()
    assert (made.publisher.key, made.publisher.due) == (subnet(20), TERM.ttl - TERM.margin)
    assert store.done == ["put 10.42.20.0-24 1000"]


@pytest.mark.parametrize("previous", ["10.42.7.0/24", "10.99.1.0/24", "10.42.20.0/25"])
def test_a_previous_subnet_that_is_taken_or_does_not_fit_is_forgotten(
    store: Store, run: Callable[..., Run], previous: str
) -> None:
    """Any free one is chosen then."""
    store.have(7, OTHER)
    made = run(previous)
    assert made.announce() == ""
    assert made.publisher.key not in {subnet(7), ""}
    assert made.publisher.key in store.kept


def test_a_subnet_that_no_longer_fits_is_given_up(store: Store, run: Callable[..., Run]) -> None:
    """The network was changed: our old key goes, and another is taken."""
    key = f"{PREFIX}/subnets/10.99.1.0-24"
    store.kept[key] = Item(key, value_of(OWN))
    made = run()
    made.announce()
    assert store.done[0] == "delete 10.99.1.0-24"
    assert made.publisher.key.startswith(f"{PREFIX}/subnets/10.42.")


def test_garbage_among_the_subnets_is_passed_over(store: Store, run: Callable[..., Run]) -> None:
    """A key that is no subnet is nobody's; a value that is no node's still holds its subnet."""
    store.kept[f"{PREFIX}/subnets/x"] = Item(f"{PREFIX}/subnets/x", value_of(OWN))
    store.kept[subnet(20)] = Item(subnet(20), b"garbage")
    made = run("10.42.20.0/24")
    assert made.announce() == ""
    assert made.publisher.key not in {subnet(20), ""}


def test_a_race_that_is_lost_is_run_again(store: Store, run: Callable[..., Run]) -> None:
    """Another subnet is taken, with the lease that was granted for the first."""
    store.rivals = 1
    made = run("10.42.20.0/24")
    assert made.announce() == ""
    assert list(store.left) == [1000]
    assert made.publisher.key not in {subnet(20), ""}


def test_a_race_that_is_always_lost_is_told(store: Store, run: Callable[..., Run]) -> None:
    """After ten races the node says why it has no subnet, tries again, and gets one."""
    store.rivals = 10
    made = run()
    assert made.announce() == ("10 times another node was faster to a free subnet; trying again")
    assert made.heard.get(timeout=5) == ""
    assert len(store.left) == 1


@pytest.mark.parametrize("left", [None, 30], ids=["taken", "renewed"])
def test_attempts_that_fail_leave_no_lease_behind(
    store: Store, run: Callable[..., Run], left: int | None
) -> None:
    """All that can't write the key use one lease, and so does the one that can."""
    if left:
        store.have(9, lease=1000, left=left)
    leases = len(store.left) + 1
    store.broken = True
    made = run("10.42.9.0/24")
    assert made.announce() == made.heard.get(timeout=5) == "etcd is read-only"
    assert len(store.left) == leases
    store.left[999 + leases] -= 20
    store.broken = False
    while made.heard.get(timeout=5):
        pass
    assert store.done == [f"put 10.42.9.0-24 {999 + leases}"]
    assert (len(store.left), made.publisher.due) == (leases, 50)


def test_a_lease_that_an_attempt_left_is_not_used_when_it_is_due(
    store: Store, run: Callable[..., Run]
) -> None:
    """After a long outage a new one is granted."""
    store.broken = True
    made = run("10.42.20.0/24")
    made.announce()
    store.left[1000] = TERM.margin
    store.broken = False
    while made.heard.get(timeout=5):
        pass
    assert store.done == ["put 10.42.20.0-24 1001"]


def test_a_write_whose_answer_was_lost_is_not_undone(store: Store, run: Callable[..., Run]) -> None:
    """Our key stays as it was written, for its peers would lose the node with it."""
    store.have(9, lease=5, left=30)
    store.mute = True
    made = run()
    assert made.announce() == "the answer is lost"
    assert made.heard.get(timeout=5) == ""
    assert (store.done, store.kept[subnet(9)].lease) == (["put 10.42.9.0-24 1001"], 1001)


def test_a_subnet_that_was_taken_from_us_is_left(store: Store, run: Callable[..., Run]) -> None:
    """Our pods have addresses of it: no other is chosen, and who has it is told, with advice."""
    store.have(9, lease=5, left=80)
    made = run()
    made.announce()
    store.have(9, OTHER)
    reason = made.announce()
    assert reason.startswith("its subnet 10.42.9.0/24 was taken by 192.168.1.11; delete its key")
    assert store.done == []


def test_a_deleted_key_is_taken_again(store: Store, run: Callable[..., Run]) -> None:
    """It is the same subnet."""
    store.have(9, lease=5, left=80)
    made = run()
    made.announce()
    del store.kept[subnet(9)]
    made.publisher.seen(None)
    assert made.heard.get(timeout=5) == ""
    assert store.done == ["put 10.42.9.0-24 1001"]


def test_our_own_value_wakes_nobody(store: Store, run: Callable[..., Run]) -> None:
    """An event that tells of our own write causes no read."""
    store.have(9, lease=5, left=80)
    made = run()
    made.announce()
    made.publisher.seen(value_of(OWN))
    with pytest.raises(queue.Empty):
        made.heard.get(timeout=0.05)


@pytest.mark.parametrize("own", [OWN, dataclasses.replace(OWN, vtep_mac="12:00:00:00:00:01")])
def test_a_reservation_stays_without_a_lease(
    store: Store, run: Callable[..., Run], own: Announcement
) -> None:
    """A key that a person put gets our data, and is written only where they differ."""
    store.have(9, own)
    made = run()
    made.announce()
    assert store.done == ([] if own == OWN else ["put 10.42.9.0-24 0"])
    assert made.publisher.due == TERM.ttl


def test_a_network_without_config_says_where_it_belongs(
    store: Store, run: Callable[..., Run]
) -> None:
    """The key is named."""
    del store.kept[f"{PREFIX}/config"]
    assert f"etcd has no key {PREFIX}/config" in run().announce()
