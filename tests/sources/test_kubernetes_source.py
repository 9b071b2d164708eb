# SPDX-License-Identifier: Apache-2.0
"""Following nodes over real HTTP, and every way in which an API server lets its clients down."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from apiserver import PREFIX, ApiServer, Fault, make_node
from following import QUICK, peers, until, wait_for

from vxlane.sources.kubernetes.access import Access
from vxlane.sources.kubernetes.source import KubernetesSource

Follow = Callable[..., KubernetesSource]
ONE, TWO = {"node-00001"}, {"node-00001", "node-00002"}


def three(api: ApiServer) -> None:
    """Nodes 0 (ours), 1 and 2."""
    api.put(*(make_node(number) for number in range(3)))


@pytest.mark.parametrize("watch_list", [True, False], ids=["initial events", "pages"])
def test_all_nodes_are_read_whatever_the_server_can(
    api: ApiServer, follow: Follow, *, watch_list: bool
) -> None:
    """1,100 nodes, more than two pages, are all there, and this node is told from its peers."""
    api.watch_list = watch_list
    api.put(*(make_node(number) for number in range(1100)))
    snapshot = wait_for(follow(api), lambda s: s.read_at)
    assert len(snapshot.peers) == 1099
    assert snapshot.own is not None
    assert str(snapshot.own.pod_cidr) == "10.64.0.0/24"
    assert not snapshot.problems


def test_changes_arrive(api: ApiServer, follow: Follow) -> None:
    """A node that is added, one that changes its MAC and one that is deleted are seen as such."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    api.put(make_node(3))
    data = '{"VNI":1,"VtepMAC":"0a:bb:cc:dd:ee:ff"}'
    api.put(make_node(1, backend_data=data))
    api.delete("node-00002")
    snapshot = wait_for(source, lambda s: peers(s) == {"node-00001", "node-00003"})
    assert "0a:bb:cc:dd:ee:ff" in {node.vtep_mac for node in snapshot.peers}


def test_a_refused_watch_list_is_not_tried_again(api: ApiServer, follow: Follow) -> None:
    """A server that refuses sendInitialEvents is listed in pages, also after a 410."""
    api.watch_list = False
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    api.down()
    api.delete("node-00002")
    api.forget()
    api.up()
    wait_for(source, lambda s: peers(s) == ONE)
    assert sum("sendInitialEvents" in path for path in api.requests) == 1


def test_a_server_that_never_ends_its_initial_events_is_listed(
    api: ApiServer, follow: Follow
) -> None:
    """Where the closing bookmark does not come, silence leads to a paged list."""
    three(api)
    api.faults.append(Fault(mute=True))
    wait_for(follow(api), lambda s: peers(s) == TWO)


def test_a_watch_resumes_after_the_last_bookmark(api: ApiServer, follow: Follow) -> None:
    """After a cut the next watch starts at the last version seen: nothing is read twice."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    api.version += 500
    time.sleep(3 * api.bookmark_every)
    api.down()
    api.up()
    api.put(make_node(3))
    wait_for(source, lambda s: len(s.peers) == 3)
    assert f"resourceVersion={1503}" in api.requests[-1]
    assert sum("sendInitialEvents" in path for path in api.requests) == 1


@pytest.mark.parametrize("as_event", [True, False], ids=["event", "answer"])
def test_deletions_in_a_gap_are_not_lost(api: ApiServer, follow: Follow, *, as_event: bool) -> None:
    """After 410 Gone, an answer or an ERROR event, the set is read and what is not in it goes."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    api.down()
    api.delete("node-00002")
    if as_event:
        api.history.clear()
        api.faults.append(Fault(error_event=410))
    else:
        api.forget()
    api.up()
    assert wait_for(source, lambda s: peers(s) == ONE)


def test_an_event_cut_in_the_middle_comes_again(api: ApiServer, follow: Follow) -> None:
    """A connection that breaks inside an event neither loses nor garbles that event."""
    three(api)
    api.faults.extend([Fault(), Fault(cut=True), Fault(cut=True)])
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    api.down()
    api.up()
    api.put(make_node(3))
    snapshot = wait_for(source, lambda s: len(s.peers) == 3 and not s.error)
    assert not snapshot.problems
    assert not api.faults


@pytest.mark.parametrize("watch_list", [True, False], ids=["initial events", "pages"])
def test_a_cut_list_is_never_taken_for_the_whole(
    api: ApiServer, follow: Follow, *, watch_list: bool
) -> None:
    """Half a list changes nothing: the nodes that it did not come to say are still there."""
    api.watch_list = watch_list
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    until(lambda: "watch=1" in api.requests[-1])  # the first fault is for a watch that is resumed
    api.down()
    api.forget()
    api.faults.extend([Fault(error_event=410), *[Fault(cut=True)] * 3])
    api.up()
    while api.faults:
        assert peers(source.nodes()) == TWO
        time.sleep(0.01)
    wait_for(source, lambda s: not s.error)
    assert peers(source.nodes()) == TWO


def test_a_half_open_connection_is_noticed(api: ApiServer, follow: Follow) -> None:
    """A stream without even a bookmark for longer than `silence` is left for a new one."""
    three(api)
    api.faults.extend([Fault(), Fault(mute=True)])
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    api.down()
    api.up()
    time.sleep(0.3)
    api.put(make_node(3))
    began = time.monotonic()
    wait_for(source, lambda s: len(s.peers) == 3)
    assert time.monotonic() - began < QUICK.silence + 1


def test_bookmarks_keep_a_quiet_watch_alive(api: ApiServer, follow: Follow) -> None:
    """While bookmarks come, a watch outlives `silence` and the set is known to be fresh."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    time.sleep(1.5 * QUICK.silence)
    assert len(api.requests) == 1
    assert time.monotonic() - (source.nodes().read_at or 0) < 2 * api.bookmark_every + 0.2


@pytest.mark.parametrize("status", [500, 503, 403])
def test_an_unreadable_server_keeps_the_last_set(
    api: ApiServer, follow: Follow, status: int
) -> None:
    """While the server refuses, its words are the error, the nodes stay and their age grows."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    api.down()
    api.faults.extend([Fault(status=status)] * 30)
    api.up()
    first = wait_for(source, lambda s: f"answered {status}" in s.error)
    assert "not now" in first.error
    time.sleep(0.3)
    later = source.nodes()
    assert later.peers == first.peers
    assert later.read_at == first.read_at
    api.faults.clear()
    wait_for(source, lambda s: not s.error)


def test_retry_after_is_obeyed(api: ApiServer, follow: Follow) -> None:
    """A 429 that asks for two seconds gets them, though the back-off is shorter."""
    three(api)
    api.faults.append(Fault(status=429, retry_after=2))
    began = time.monotonic()
    wait_for(follow(api), lambda s: peers(s) == TWO)
    assert 2 <= time.monotonic() - began < 3
    assert len(api.requests) == 2


def test_a_rotated_token_is_read_again(api: ApiServer, follow: Follow, tmp_path: Path) -> None:
    """After the old token is refused with 401, the one that its file holds then is used."""
    three(api)
    token = tmp_path / "token"
    token.write_text("first\n")
    api.token = "first"
    source = follow(api, access=Access(api.url, token=token))
    wait_for(source, lambda s: peers(s) == TWO)
    api.token = "second"
    api.down()
    api.up()
    wait_for(source, lambda s: "answered 401" in s.error)
    token.write_text("second\n")
    wait_for(source, lambda s: not s.error)


def test_a_server_that_is_down_for_the_whole_start(api: ApiServer, follow: Follow) -> None:
    """A source starts without its server, says why it has nothing, and has all later."""
    three(api)
    api.down()
    source = follow(api)
    snapshot = wait_for(source, lambda s: s.error)
    assert "connection refused" in snapshot.error
    assert snapshot.read_at is None
    assert snapshot.peers == ()
    assert snapshot.problems == ()
    api.up()
    wait_for(source, lambda s: peers(s) == TWO and not s.error)


def test_a_flapping_server_loses_nothing(api: ApiServer, follow: Follow) -> None:
    """Through five outages with changes in each, the set is what the server's is at the end."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    for number in range(3, 8):
        api.down()
        api.put(make_node(number))
        api.delete(f"node-{number - 2:05}")
        if number % 2:
            api.forget()
        api.up()
        time.sleep(0.1)
    wait_for(source, lambda s: peers(s) == {"node-00006", "node-00007"} and not s.error)


def test_an_empty_list_is_passed_on_and_flagged(api: ApiServer, follow: Follow) -> None:
    """No nodes at all is what the source says, with a problem that names this node."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    for name in list(api.nodes):
        api.delete(name)
    snapshot = wait_for(source, lambda s: not s.peers)
    assert snapshot.own is None
    assert {problem.node for problem in snapshot.problems} == {"node-00000"}
    assert "empty" in snapshot.problems[-1].reason


@pytest.mark.parametrize("body", [b"{}", b'{"status":"ok"}', b"[1]", b'"well"'])
@pytest.mark.parametrize("watch_list", [True, False], ids=["initial events", "pages"])
def test_what_holds_no_nodes_changes_nothing(
    api: ApiServer,
    follow: Follow,
    caplog: pytest.LogCaptureFixture,
    *,
    watch_list: bool,
    body: bytes,
) -> None:
    """JSON of whatever answers in the server's place is no list of nodes, and no fault of ours."""
    api.watch_list = watch_list
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    api.down()
    api.forget()
    api.faults.extend([Fault(status=410), Fault(body=body), Fault(body=body)])
    api.up()
    until(lambda: not api.faults)
    wait_for(source, lambda s: not s.error)
    assert peers(source.nodes()) == TWO
    assert "unexpected" not in caplog.text
    assert "followed again: 0" not in caplog.text


def test_an_outage_is_told_once(
    api: ApiServer, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt is refused in the same words, though each asks for a watch of another length."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    api.faults.extend([Fault(status=503)] * 6)
    api.down()
    api.up()
    until(lambda: not api.faults)
    wait_for(source, lambda s: not s.error)
    assert caplog.text.count("answered 503") == 1


def test_an_address_that_is_none_is_told_once(
    api: ApiServer, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    """Kubelet changes its node every few minutes, and with that no annotation."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    for heartbeat in range(3):
        own = make_node(0, node_public_ip="here")
        own["status"]["conditions"][0]["lastHeartbeatTime"] = str(heartbeat)
        api.put(own)
    api.put(make_node(3))
    wait_for(source, lambda s: "node-00003" in peers(s))
    assert caplog.text.count("node-public-ip is ignored") == 1


def test_slow_bodies_are_waited_for(api: ApiServer, follow: Follow) -> None:
    """A body that drips is no failure as long as something comes."""
    api.watch_list = False
    three(api)
    api.faults.extend([Fault(), Fault(drip=0.005)])
    assert not wait_for(follow(api), lambda s: peers(s) == TWO).error


def test_what_does_not_concern_us_wakes_nobody(api: ApiServer, follow: Follow) -> None:
    """A heartbeat leaves the eventfd alone; a change of an annotation that counts does not."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    os.eventfd_read(source.changed)
    heartbeat = make_node(1)
    heartbeat["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-11-22T10:00:00Z"
    api.put(heartbeat)
    time.sleep(0.1)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(source.changed)
    api.put(make_node(1, public_ip="172.16.9.9"))
    wait_for(source, lambda s: "172.16.9.9" in {str(node.address) for node in s.peers})
    assert os.eventfd_read(source.changed) == 1


def test_one_bad_node_spoils_nothing(api: ApiServer, follow: Follow) -> None:
    """Garbage, no pod CIDR and a doubled pod CIDR are each reported by name; the rest is there."""
    three(api)
    no_cidr, twin = make_node(11), make_node(12)
    del no_cidr["spec"]["podCIDR"], no_cidr["spec"]["podCIDRs"]
    twin["spec"] = make_node(1)["spec"]
    # It sorts before its twin by age only if age is looked at: the older node is to stay.
    twin["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
    unmanaged = make_node(13)
    del unmanaged["metadata"]["annotations"][f"{PREFIX}/kube-subnet-manager"]
    api.put(make_node(10, backend_data="{"), no_cidr, twin, unmanaged)
    source = follow(api)
    snapshot = wait_for(source, lambda s: s.read_at)
    reasons = {problem.node: problem.reason for problem in snapshot.problems}
    assert reasons.keys() == {f"node-000{number}" for number in (10, 11, 12)}
    assert "not JSON" in reasons["node-00010"]
    assert "no IPv4 podCIDR" in reasons["node-00011"]
    assert "'node-00001'" in reasons["node-00012"]
    assert peers(snapshot) == TWO


def test_closing_ends_a_quiet_stream_at_once(api: ApiServer, follow: Follow) -> None:
    """close() returns in a moment although the stream has nothing to say, and may be repeated."""
    three(api)
    source = follow(api)
    wait_for(source, lambda s: peers(s) == TWO)
    began = time.monotonic()
    source.close()
    source.close()
    assert time.monotonic() - began < 0.3
    assert peers(source.nodes()) == TWO
    assert not source.nodes().error
