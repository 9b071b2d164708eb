# SPDX-License-Identifier: Apache-2.0
"""Addresses, ifindexes and names of pods are given away again: each packet reaches its own pod."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest
from numbered import Talk, traffic
from rig import AGENT, ROUNDS, attach, counted, ifindex, veth_of
from tenants import Tenants

from vxlane.lab.underlay import ip
from vxlane.lab.waiting import wait_for

NODES = ("node1", "node2")
CLIENTS = ("node1-pod1", "node2-pod1")
"""One on the other node, one on the tenants' own."""


@pytest.fixture
def talks():
    """Traffic for one test."""
    with traffic() as made:
        yield made


@pytest.fixture
def tenants(pair, talks):
    """Tenants of one address on node2, at most three on either node."""
    made = Tenants(pair, talks, addresses=1)
    yield made
    made.remove_all()


@pytest.fixture(params=[True, False], ids=["alive", "dead"])
def has_agent(pair, request):
    """Whether the test is to leave node2's agent alive; a dead one is replaced at the end."""
    yield request.param
    if not request.param:
        pair.start_agent("node2", *AGENT)


def call(talks, lab, address, *, local=7300):
    """Talk to an address from both clients, always from the same port."""
    return [talks.join(Talk(lab.netns(client), address, local=local)) for client in CLIENTS]


def veth_index(lab, tenant):
    """The ifindex of the host end of a tenant's veth."""
    return ifindex(lab.netns(tenant.node), veth_of(lab, tenant.node, tenant.name))


def secrets(one, *, after):
    """Who answered what was sent after a number."""
    return {secret for number, secret in one.answers.items() if number > after}


BYPASSED = {
    ("from_pod", "encapsulated"): 2 * ROUNDS,
    ("from_nic", "decapsulated"): 2 * ROUNDS,
    ("from_pod", "switched"): 2 * ROUNDS,
}
"""Of `ROUNDS` datagrams from each client, and their answers."""
BY_THE_KERNEL = {
    ("from_pod", "encapsulated"): ROUNDS,
    ("from_nic", "no_pod"): ROUNDS,
    ("from_nic", "decapsulated"): ROUNDS,
    ("from_pod", "no_pod"): ROUNDS,
    ("to_pod", "no_stamp"): ROUNDS,
}
"""The same where node2 has no pod of that address any more: only node1 bypasses."""


def test_address_given_to_another_pod(pair, talks, tenants, has_agent):
    """The next pod of an address has all packets of flows that were approved for the last one.

    With the agent alive it starts with nothing approved, and is then bypassed; with the agent dead
    its packets take the kernel path, and none is put into the veth that is gone.
    """
    first = tenants.add("node2")
    clients = call(talks, pair, first.address)
    talks.begin()
    with pair.verdicts("node1", "node2") as seen:
        talks.exchange(ROUNDS)
    assert talks.lost == 0
    assert counted(seen) == BYPASSED

    if not has_agent:
        pair.kill_agent("node2")
    tenants.remove(first)
    second = tenants.add("node2")
    assert second.address == first.address
    sent = max(one.sent for one in clients)
    with pair.verdicts("node2") as seen:
        talks.begin()
    assert (seen["from_nic", "flow_withdrawn"] > 0) is has_agent
    with pair.verdicts("node1", "node2") as seen:
        talks.exchange(ROUNDS)
    assert talks.lost == 0
    assert counted(seen) == (BYPASSED if has_agent else BY_THE_KERNEL)
    assert [secrets(one, after=sent) for one in clients] == [{second.name}] * 2


def test_ifindex_given_to_another_pod(pair, talks, tenants, has_agent):
    """A pod whose veth has a dead pod's ifindex gets no packet that was for the dead one.

    Another one that has its address gets them, by the kernel path, before any agent knows it.
    """
    first = tenants.add("node2")
    clients = call(talks, pair, first.address)
    talks.begin()
    index = veth_index(pair, first)
    if not has_agent:
        pair.kill_agent("node2")
    talks.start()
    other, heir = tenants.replace_by_hand(first, {"10.42.2.150": index, first.address: 0})
    assert veth_index(pair, other) == index
    sent = max(one.sent for one in clients)
    talks.begin()
    with pair.verdicts("node1", "node2") as seen:
        talks.exchange(ROUNDS)
    assert talks.lost == 0
    assert counted(seen)["from_nic", "no_pod"] == ROUNDS
    assert [secrets(one, after=sent) for one in clients] == [{heir.name}] * 2
    assert other.watch.wrong == []
    if has_agent:
        assert attach(pair, "node2", other.name)["accelerated"]
        assert attach(pair, "node2", heir.name)["accelerated"]
        talks.begin()
        with pair.verdicts("node1", "node2") as seen:
            talks.exchange(ROUNDS)
        assert counted(seen) == BYPASSED
        assert [one.watch.wrong for one in (other, heir)] == [[], []]


@pytest.mark.parametrize("event", ["link", "restart"])
def test_two_pods_claim_one_address(pair, talks, tenants, event):
    """Before the DEL for an address's last pod has come, the next one has all of its packets.

    Neither a look at the last one's veth nor another agent gives the address back to it.
    """
    last = tenants.add("node2")
    clients = call(talks, pair, last.address)
    talks.begin()
    (heir,) = tenants.add_by_hand("node2", {last.address: 0})
    assert attach(pair, "node2", heir.name)["accelerated"]
    if event == "restart":
        pair.kill_agent("node2")
        pair.start_agent("node2", *AGENT)
    else:
        looks = pair.ask("node2", op="status")["status"]["reconciles"]
        ip(pair.netns("node2"), f"link set {veth_of(pair, 'node2', last.name)} alias old")
        wait_for(lambda: pair.ask("node2", op="status")["status"]["reconciles"] > looks, "a look")
    sent = max(one.sent for one in clients)
    talks.begin()
    with pair.verdicts("node1", "node2") as seen:
        talks.exchange(ROUNDS)
    assert talks.lost == 0
    assert counted(seen) == BYPASSED
    assert [secrets(one, after=sent) for one in clients] == [{heir.name}] * 2


def test_a_vanished_pod_is_forgotten_at_once(pair, tenants):
    """A pod whose namespace vanished, without a word from the runtime, is taken out of the map."""
    tenant = tenants.add("node2")
    with pair.maps("node2") as maps:
        assert IPv4Address(tenant.address) in maps.pods()
        ip(pair.netns("node2"), f"link del {veth_of(pair, 'node2', tenant.name)}")
        wait_for(lambda: IPv4Address(tenant.address) not in maps.pods(), "the pod to be forgotten")


def test_pod_moved_to_the_other_node(pair, talks, tenants):
    """A pod that went to the other node is reached and bypassed there; nobody gets what is still
    sent to its old address.
    """
    old = tenants.add("node2")
    gone = call(talks, pair, old.address)
    talks.begin()
    tenants.remove(old)
    new = tenants.add("node1")
    with pair.verdicts("node1", "node2") as seen:
        talks.exchange(20)
    assert [one.owed for one in gone] == [20, 20]
    assert counted(seen)["from_nic", "no_pod"] == 20
    assert ("from_nic", "decapsulated") not in seen
    for one in gone:
        talks.leave(one)
    call(talks, pair, new.address)
    talks.begin()
    with pair.verdicts("node1", "node2") as seen:
        talks.exchange(ROUNDS)
    assert talks.lost == 0
    assert counted(seen) == BYPASSED
    assert [watch.wrong for watch in tenants.watches] == [[], []]


@pytest.mark.parametrize(
    "times", [60, pytest.param(500, marks=[pytest.mark.full, pytest.mark.timeout(900)])]
)
def test_churn(pair, times):
    """Pods move about under traffic to every address: each answer is from the pod that was meant.

    All packets to an address are of one flow per client, whoever has the address.
    """
    lab = pair
    chance = random.Random(times)
    with traffic(pause=0.01) as talks:
        tenants = Tenants(lab, talks, addresses=4)
        leases = Leases(lab, talks, [a for node in NODES for a in tenants.pool(node)])
        living = [leases.begin(tenants.add(chance.choice(NODES))) for _ in range(3)]
        talks.start()
        with lab.verdicts(*NODES) as seen:
            for _ in range(times):
                gone = living.pop(chance.randrange(len(living)))
                leases.end(gone)
                tenants.remove(gone)
                living.append(leases.begin(tenants.add(chance.choice(NODES))))
                talks.go_on(3, *leases.of(living[-1]))
        talks.stop()
        tenants.remove_all()
    assert leases.wrong() == []
    assert [packet for watch in tenants.watches for packet in watch.wrong] == []
    assert len(tenants.watches) == times + 3
    assert seen["from_nic", "decapsulated"] > times
    assert seen["from_pod", "switched"] > times


class Leases:
    """Who had which address when, in numbers of the clients' datagrams, and who answered."""

    def __init__(self, lab, talks, addresses):
        self._talks = {
            address: call(talks, lab, address, local=port)
            for port, address in enumerate(addresses, start=7300)
        }
        self._terms = {one: [] for each in self._talks.values() for one in each}

    def of(self, tenant):
        """The flows to a tenant's address."""
        return self._talks[tenant.address]

    def begin(self, tenant):
        """What is sent from now on is for this tenant."""
        for one in self.of(tenant):
            self._terms[one].append([one.sent, float("inf"), tenant.name])
        return tenant

    def end(self, tenant):
        """It may go any time now."""
        for one in self.of(tenant):
            self._terms[one][-1][1] = one.sent

    def wrong(self):
        """Answers, as (number, who), by anyone but who had the address when it was asked.

        What is asked between two terms, either may answer.
        """
        return [
            (number, secret)
            for one, terms in self._terms.items()
            for number, secret in one.answers.items()
            if secret not in _possible(terms, number)
        ]


def _possible(terms, number):
    """Who may answer a number: who had the address, else who had it last and who next."""
    holders = {name for begin, end, name in terms if begin < number <= end}
    if holders:
        return holders
    before = [name for _, end, name in terms if end < number]
    after = [name for begin, _, name in terms if begin >= number]
    return {*before[-1:], *after[:1]}
