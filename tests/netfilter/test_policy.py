# SPDX-License-Identifier: Apache-2.0
"""What netfilter denies is not bypassed, and what it no longer allows does not go on."""

from __future__ import annotations

import time

import pytest
from dialogue import Call, answered, beating, call, hearing, serving
from paths import CONNECTING, REVALIDATE, bypassed, judged, ruleset
from policies import CONTROLLERS, BlockList, KubeRouter

COUNT = 20
SERVED, NEIGHBOUR, REMOTE, OTHER_REMOTE = "node2-pod1", "node2-pod2", "node1-pod1", "node1-pod2"
AT_ONCE = 3.0
"""Seconds: it takes milliseconds, the rest is a busy machine's; approvals last for 10 and 30."""


@pytest.fixture(
    params=[
        ("kube-router", REMOTE),
        ("nftables", REMOTE),
        ("kube-router", NEIGHBOUR),
        ("nftables", NEIGHBOUR),
        ("bridge", NEIGHBOUR),
    ],
    ids="-".join,
)
def denied(lab, request):
    """A pod that may not talk to SERVED, by a policy on the latter's node; OTHER_REMOTE may."""
    controller, kept_out = request.param
    policy = CONTROLLERS[controller](lab, "node2")
    with ruleset(lab, "node2"):
        policy.install(lab.address(SERVED), lab.address(OTHER_REMOTE))
    yield kept_out
    with ruleset(lab, "node2"):
        policy.remove()


def test_denied(lab, denied):
    """Of a pod that a policy keeps out nothing is learned; one that it lets in is bypassed."""
    address = lab.address(SERVED)
    attempts = [
        Call(address, count=COUNT, timeout=1.5),
        Call(address, protocol="udp", count=COUNT, timeout=1.5),
    ]
    ping = ["ping", "-c", "3", "-i", "0.1", "-W", "1", address]
    with (
        serving(lab, SERVED),
        lab.verdicts("node2") as seen,
        lab.spawn(denied, *ping, stdout=-1) as pinging,
    ):
        reports = call(lab, denied, *attempts)
        assert "3 packets transmitted, 0 received" in pinging.communicate(timeout=5)[0]
    assert [sum(report.errors.values()) for report in reports] == [COUNT, COUNT]
    entrance = "from_pod" if denied == NEIGHBOUR else "from_nic"
    refusals = {("to_nic", "no_pod"), ("to_pod", "protocol")}  # kube-router's ICMP
    assert set(judged(seen)) - refusals == {(entrance, "tcp_control"), (entrance, "flow_unknown")}
    assert seen[entrance, "flow_unknown"] == COUNT + 3

    allowed = [Call(address, rounds=COUNT), Call(address, protocol="udp", rounds=COUNT)]
    with serving(lab, SERVED), lab.verdicts("node2") as seen:
        answered(call(lab, OTHER_REMOTE, *allowed), *allowed)
    ways = {("from_pod", "encapsulated"), ("from_nic", "decapsulated")}
    assert set(bypassed(seen)) == ways
    assert set(judged(seen)) <= ways | CONNECTING


@pytest.fixture
def block_list(lab):
    """A list of blocked sources on node2."""
    made = BlockList(lab, "node2")
    made.install()
    yield made
    made.remove()


@pytest.mark.parametrize(
    ("client", "protocol"), [(REMOTE, "tcp"), (NEIGHBOUR, "udp")], ids=["another-node", "same-node"]
)
@pytest.mark.parametrize("how", ["flush", "rule"])
def test_revoked_at_once(lab, block_list, how, protocol, client):
    """A bypassed flow that is denied stops with `vxlane flows flush`, or with a change of rules."""
    with serving(lab, SERVED), beating(lab, client, protocol, lab.address(SERVED)) as heard:
        heard.await_more()
        with lab.verdicts("node2") as seen:
            heard.await_more()
        assert bypassed(seen)
        if how == "flush":
            block_list.add(lab.address(client))
            heard.await_more()  # nobody has noticed
            assert lab.vxlane("node2", "flows", "flush")["epoch"]
        else:
            block_list.add_rule(lab.address(client))
        assert heard.silent_after(time.monotonic()) < AT_ONCE
        with lab.verdicts("node2") as seen:
            time.sleep(0.5)
        assert bypassed(seen) == {}


@pytest.mark.parametrize("client", [REMOTE, NEIGHBOUR], ids=["another-node", "same-node"])
@pytest.mark.parametrize("talk", ["tcp", "udp-one-way"])
def test_revoked_within_revalidate(quick_lab, quick_block_list, talk, client):
    """A bypassed flow that is denied unseen stops when its approval is too old."""
    lab, address = quick_lab, quick_lab.address(SERVED)
    protocol, _, one_way = talk.partition("-")
    with (
        hearing(lab, SERVED, 9000) if one_way else serving(lab, SERVED) as ear,
        beating(lab, client, protocol, address, 9000 if one_way else 8080) as echoes,
    ):
        heard = ear if one_way else echoes
        heard.await_more()
        with lab.verdicts("node2") as seen:
            heard.await_more()
        assert bypassed(seen)
        quick_block_list.add(lab.address(client))
        assert heard.silent_after(time.monotonic()) < REVALIDATE + AT_ONCE
        with lab.verdicts("node2") as seen:
            time.sleep(0.5)
        assert bypassed(seen) == {}


def test_answers_revoked(quick_lab, quick_block_list):
    """When only a TCP connection's answers are denied, its questions are not bypassed either."""
    lab = quick_lab
    with serving(lab, REMOTE), beating(lab, SERVED, "tcp", lab.address(REMOTE)) as heard:
        heard.await_more()
        quick_block_list.add(lab.address(REMOTE))
        # TCP repeats itself after 0.2, 0.6 and 1.4 s, and an approval lasts for 1 s.
        assert heard.silent_after(time.monotonic(), for_long=0.4) < REVALIDATE + AT_ONCE
        with lab.verdicts("node2") as seen:
            time.sleep(1.5)
    assert bypassed(seen) == {}
    # What it repeats is looked at by netfilter each time.
    assert seen["from_pod", "flow_aged"] == seen["to_nic", "learned"] > 0


@pytest.fixture
def quick_block_list(quick_lab):
    """A list of blocked sources on node2 of the quick lab."""
    made = BlockList(quick_lab, "node2")
    made.install()
    yield made
    made.remove()


def test_established_goes_on(lab):
    """A connection older than the policy goes on, bypassed, where kube-router lets it go on."""
    policy, address = KubeRouter(lab, "node2"), lab.address(SERVED)
    late = Call(address, timeout=1.5)
    with serving(lab, SERVED), beating(lab, REMOTE, "tcp", address) as heard:
        heard.await_more()
        with ruleset(lab, "node2"):
            policy.install(address, lab.address(OTHER_REMOTE))
        heard.await_more()
        with lab.verdicts("node2") as seen:
            heard.await_more()
        refused = call(lab, REMOTE, late)
        with ruleset(lab, "node2"):
            policy.remove()
    assert not refused[0].talks
    assert set(judged(seen)) == {("from_pod", "encapsulated"), ("from_nic", "decapsulated")}
