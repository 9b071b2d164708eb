# SPDX-License-Identifier: Apache-2.0
"""Announcing this node: what is written, when, and that it stays."""

import dataclasses
import json
import time
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from apiserver import PREFIX, ApiServer, Fault, make_node
from following import until, wait_for

from vxlane.sources.follow import Timing
from vxlane.sources.kubernetes import publisher
from vxlane.sources.kubernetes.source import KubernetesSource
from vxlane.sources.model import Announcement, Backend

Follow = Callable[..., KubernetesSource]
NAME = "node-00000"
OWN = Announcement(IPv4Address("192.168.1.12"), Backend.VXLAN, 1, "12:c6:65:89:b4:e3")


def fresh(api: ApiServer) -> None:
    """A node that flannel never ran on, and one that it did."""
    node = make_node(0)
    node["metadata"]["annotations"] = {"node.alpha.kubernetes.io/ttl": "0"}
    api.put(node, make_node(1))


def test_a_node_is_announced_in_one_patch_of_its_status(api: ApiServer, follow: Follow) -> None:
    """One strategic merge patch of nodes/status holds the four annotations and nothing else."""
    fresh(api)
    source = follow(api)
    wait_for(source, lambda s: s.peers)
    assert source.nodes().own is None
    source.announce(OWN)
    own = wait_for(source, lambda s: s.own).own
    assert own is not None
    assert (own.address, own.vtep_mac) == (OWN.address, OWN.vtep_mac)
    [(path, kind, body)] = api.patches
    assert path == "/api/v1/nodes/node-00000/status"
    assert kind == "application/strategic-merge-patch+json"
    assert json.loads(body) == {
        "metadata": {
            "annotations": {
                f"{PREFIX}/backend-data": '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}',
                f"{PREFIX}/backend-type": "vxlan",
                f"{PREFIX}/kube-subnet-manager": "true",
                f"{PREFIX}/public-ip": "192.168.1.12",
            }
        }
    }


def test_the_stored_mac_is_known_before_anything_is_announced(
    api: ApiServer, follow: Follow
) -> None:
    """The MAC of an earlier life is in the first snapshot, for the device to be made with."""
    api.put(make_node(0))
    own = wait_for(follow(api), lambda s: s.read_at).own
    assert own is not None
    assert own.vtep_mac == "0e:00:00:00:00:00"


def test_a_node_that_is_announced_already_is_left_alone(api: ApiServer, follow: Follow) -> None:
    """Announcing twice, or after a restart with the same MAC and address, patches nothing."""
    fresh(api)
    source = follow(api)
    source.announce(OWN)
    wait_for(source, lambda s: s.own)
    source.announce(OWN)
    second = follow(api)
    second.announce(OWN)
    wait_for(second, lambda s: s.own)
    time.sleep(0.3)
    assert len(api.patches) == 1


def test_annotations_that_get_lost_are_put_back(api: ApiServer, follow: Follow) -> None:
    """After another writer changed the MAC, a patch with only the backend data restores ours."""
    fresh(api)
    source = follow(api)
    source.announce(OWN)
    wait_for(source, lambda s: s.own)
    stolen = json.loads(json.dumps(api.nodes[NAME]))
    stolen["metadata"]["annotations"][f"{PREFIX}/backend-data"] = "null"
    api.put(stolen)
    until(lambda: len(api.patches) == 2)
    patched = json.loads(api.patches[1][2])["metadata"]["annotations"]
    assert patched == {f"{PREFIX}/backend-data": '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}'}


def test_two_machines_of_one_name_do_not_write_in_turns(
    api: ApiServer, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was changed back is written again after a while."""
    monkeypatch.setattr(publisher, "_AGAIN", 2.0)
    fresh(api)
    one, two = follow(api), follow(api)
    one.announce(OWN)
    two.announce(dataclasses.replace(OWN, address=IPv4Address("172.16.9.9")))
    until(lambda: len(api.patches) >= 3)
    time.sleep(0.5)
    written = len(api.patches)
    assert written <= 4
    until(lambda: len(api.patches) > written)


def test_a_node_that_is_made_anew_is_announced_at_once(api: ApiServer, follow: Follow) -> None:
    """Though the same was written a moment ago."""
    fresh(api)
    source = follow(api)
    source.announce(OWN)
    wait_for(source, lambda s: s.own)
    api.delete(NAME)
    fresh(api)
    until(lambda: len(api.patches) == 2)


def test_a_refused_announcement_is_a_problem_until_it_succeeds(
    api: ApiServer, follow: Follow
) -> None:
    """While the server refuses the patch the snapshot says so of this node; it is tried again."""
    fresh(api)
    source = follow(api)
    wait_for(source, lambda s: s.peers)
    api.faults.extend([Fault(status=403)] * 4)
    source.announce(OWN)
    snapshot = wait_for(source, lambda s: any("403" in p.reason for p in s.problems))
    assert {problem.node for problem in snapshot.problems} == {NAME}
    assert not snapshot.error
    wait_for(source, lambda s: s.own and not s.problems)


def test_an_unreachable_server_gets_the_announcement_later(api: ApiServer, follow: Follow) -> None:
    """announce() returns at once while the server is down; the patch is made when it is back."""
    fresh(api)
    api.down()
    source = follow(api)
    source.announce(OWN)
    wait_for(source, lambda s: s.error)
    api.up()
    wait_for(source, lambda s: s.own and not s.problems)


def test_ready_sets_the_condition_once(api: ApiServer, follow: Follow) -> None:
    """NetworkUnavailable becomes False in flannel's words; other conditions stay."""
    fresh(api)
    source = follow(api)
    source.announce(OWN)
    source.ready()
    until(lambda: len(api.patches) == 2)
    conditions = {c["type"]: c for c in api.nodes[NAME]["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "True"
    network = conditions["NetworkUnavailable"]
    assert (network["status"], network["reason"]) == ("False", "FlannelIsUp")
    assert network["message"] == "Flannel is running on this node"
    assert network["lastHeartbeatTime"].endswith("Z")


@pytest.mark.parametrize(
    ("text", "expected"), [("10.0.0.9", "10.0.0.9"), ("no", None), (None, None)]
)
def test_a_chosen_address_is_passed_on(
    api: ApiServer, follow: Follow, text: str | None, expected: str | None
) -> None:
    """The annotation node-public-ip is what the source says was chosen; garbage is none."""
    api.put(make_node(0, **({} if text is None else {"node_public_ip": text})))
    source = follow(api)
    wait_for(source, lambda s: s.read_at)
    chosen = source.chosen_address()
    assert (None if chosen is None else str(chosen)) == expected


def test_an_overwrite_that_is_no_address_is_reported(api: ApiServer, follow: Follow) -> None:
    """The node is announced with its own address, and the annotation is a problem until mended."""
    api.put(make_node(0, public_ip_overwrite="nonsense"))
    source = follow(api)
    source.announce(OWN)
    snapshot = wait_for(source, lambda s: any("nonsense" in p.reason for p in s.problems))
    assert snapshot.own is not None
    wait_for(source, lambda s: s.own and s.own.address == OWN.address)
    node = make_node(0, public_ip_overwrite="203.0.113.7")
    api.put(node)
    wait_for(source, lambda s: s.own and str(s.own.address) == "203.0.113.7" and not s.problems)


def condition(api: ApiServer) -> str:
    """The status of this node's condition NetworkUnavailable; empty: it has none."""
    found = api.nodes.get(NAME, {"status": {"conditions": []}})["status"]["conditions"]
    return next((c["status"] for c in found if c["type"] == "NetworkUnavailable"), "")


def test_a_node_that_is_made_anew_gets_the_condition_again(api: ApiServer, follow: Follow) -> None:
    """A Node that was deleted and made anew is announced and told to be up, as the first one."""
    fresh(api)
    source = follow(api)
    source.announce(OWN)
    source.ready()
    until(lambda: condition(api) == "False")
    api.delete(NAME)
    wait_for(source, lambda s: any("no entry" in p.reason for p in s.problems) or not s.own)
    fresh(api)
    until(lambda: condition(api) == "False")
    wait_for(source, lambda s: s.own and s.own.vtep_mac == OWN.vtep_mac)


def test_a_changed_node_does_not_get_the_condition_again(api: ApiServer, follow: Follow) -> None:
    """Who sets the condition to True later has a reason: it is written once for each Node."""
    fresh(api)
    source = follow(api)
    source.announce(OWN)
    source.ready()
    # Of the status, and of the annotations behind it.
    until(lambda: len(api.patches) == 2)
    node = json.loads(json.dumps(api.nodes[NAME]))
    for found in node["status"]["conditions"]:
        found["status"] = "True"
    api.put(node)
    patches = len(api.patches)
    time.sleep(0.3)
    assert len(api.patches) == patches


def test_a_node_that_appears_is_announced_at_once(api: ApiServer, follow: Follow) -> None:
    """While this node has no Node object the back-off grows; its event ends the wait."""
    api.put(make_node(1))
    source = follow(api, timing=Timing(shortest=0.1, longest=60.0, silence=30.0))
    source.announce(OWN)
    source.ready()
    wait_for(source, lambda s: any("404" in p.reason for p in s.problems))
    time.sleep(1.5)  # 0.1, 0.2, 0.4, 0.8: the next attempt is 0.8 to 1.6 s away
    began = time.monotonic()
    fresh(api)
    until(lambda: condition(api) == "False")
    wait_for(source, lambda s: s.own)
    assert time.monotonic() - began < 0.5


def test_the_condition_does_not_wait_for_the_annotations(api: ApiServer, follow: Follow) -> None:
    """An overwrite that is no address does not keep the node from being told to be up."""
    api.put(make_node(0, public_ip_overwrite="nonsense"))
    source = follow(api)
    source.announce(OWN)
    source.ready()
    until(lambda: condition(api) == "False")
