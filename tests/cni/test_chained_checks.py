# SPDX-License-Identifier: Apache-2.0
"""The chained role between ADD and DEL: CHECK, GC and STATUS, beside an agent's stand-in."""

import pytest


@pytest.fixture
def conf(agent):
    """Our entry in a network's list, as a plugin is told it."""
    return {
        "cniVersion": "1.1.0",
        "name": "cbr0",
        "type": "vxlane",
        "stateDir": str(agent.state_dir),
    }


@pytest.fixture
def made(node, conf, call):
    """CHECK a pod that has been made; its attachment."""
    pod = node.pod("web")
    conf |= {"cniVersion": "1.0.0", "prevResult": node.chain(node.bridge()).add(pod)}

    def check(**keys):
        env = {"CNI_NETNS": str(pod.netns), "CNI_ARGS": pod.args}
        return call("CHECK", {**conf, **keys}, namespace=node.namespace, **env)

    return check, pod


def test_check_asks_the_agent(node, agent, made):
    """CHECK puts the whole pod to the agent, which may have to take it on, and passes its no on."""
    check, pod = made
    answer = check()
    assert (answer.status, answer.document, answer.stderr) == (0, None, "")
    asked = agent.heard[-1]
    assert (asked["op"], asked["host_ifname"]) == ("check", node.veth_of(pod))
    assert (asked["addresses"], asked["name"]) == (["10.42.1.2"], "shop/web")
    agent.answer = {"ok": False, "error": "attach from_pod to interface 7: no memory"}
    answer = check()
    assert (answer.status, answer.document["code"]) == (1, 100)
    assert "no memory" in answer.document["msg"]


def test_check_of_a_pod_left_to_the_kernel_path(agent, made, tmp_path):
    """CHECK of a pod that is not accelerated succeeds, unless it is required to be."""
    check, _ = made
    agent.answer = {"ok": True, "accelerated": False, "reason": "isolated port"}
    answer = check()
    assert (answer.status, answer.document) == (0, None)
    assert "isolated port" in answer.stderr
    assert check(required=True).document["code"] == 100
    nowhere = str(tmp_path / "nowhere")
    assert "no agent" in check(stateDir=nowhere).stderr
    assert check(stateDir=nowhere, required=True).document["code"] == 100


def test_check_of_a_pod_whose_veth_is_gone(node, agent, made):
    """CHECK of an interface that is gone is error 100, whatever the agent might say."""
    check, pod = made
    node.run("ip", "link", "del", node.veth_of(pod))
    answer = check()
    assert (answer.status, answer.document["code"], agent.heard) == (1, 100, [])
    assert "eth0 or its other end is not there" in answer.document["msg"]


def test_check_of_a_pod_without_a_namespace(conf, call):
    """CHECK of a pod whose namespace is gone is error 8."""
    assert call("CHECK", {**conf, "prevResult": {}}).document["code"] == 8


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_hands_the_valid_attachments_on(conf, agent, call, key):
    """GC tells the agent which interfaces of the network live, under either name of the list."""
    valid = [{"containerID": "c2", "ifname": "eth0"}, {"containerID": "c1", "ifname": "net1"}]
    answer = call("GC", {**conf, key: valid}, CNI_CONTAINERID=None, CNI_IFNAME=None, CNI_NETNS=None)
    assert (answer.status, answer.document) == (0, None)
    assert agent.heard == [
        {"op": "gc", "network": "cbr0", "valid": [["c1", "net1"], ["c2", "eth0"]]}
    ]


def test_gc_of_a_network_without_pods(conf, agent, call):
    """null, as libcni writes the empty list, is the empty list."""
    answer = call("GC", {**conf, "cni.dev/valid-attachments": None})
    assert (answer.status, answer.document) == (0, None)
    assert agent.heard == [{"op": "gc", "network": "cbr0", "valid": []}]


def test_gc_without_the_list_collects_nothing(conf, agent, call):
    """A GC that names no list is an error, since every pod would be garbage."""
    answer = call("GC", conf)
    assert (answer.status, answer.document["code"]) == (1, 7)
    assert not agent.heard


def test_status(conf, call, tmp_path):
    """STATUS is ready without an agent, since pods are; with `required` that is code 50."""
    for state, required, code in (
        (tmp_path, True, 0),
        (tmp_path, False, 0),
        (tmp_path / "nowhere", False, 0),
        (tmp_path / "nowhere", True, 50),
    ):
        answer = call("STATUS", {**conf, "stateDir": str(state), "required": required})
        assert (answer.document or {}).get("code", 0) == code
        assert answer.status == (1 if code else 0)


def test_status_in_a_large_cluster(conf, call, agent):
    """An agent that names a problem of each of 15,000 nodes has answered like any other."""
    problem = (
        "node ip-10-42-117-201.eu-central-1.compute.internal: its backend is host-gw, not vxlan"
    )
    agent.answer = {"ok": True, "status": {"problems": [problem] * 15_000}}
    assert call("STATUS", {**conf, "required": True}).status == 0
