# SPDX-License-Identifier: Apache-2.0
"""The main role between ADD and DEL: CHECK, GC and STATUS."""

import json

import pytest

from vxlane.errors import ToolError


def test_check_asks_delegate_and_agent(node, conf, agent):
    """CHECK passes while interface and hooks are there, and fails when either isn't."""
    pod = node.pod()
    chain = node.chain(conf)
    chain.add(pod)
    chain.check(pod)
    assert agent.heard[-1]["op"] == "check"
    agent.answer = {"ok": False, "error": "hooks are gone"}
    with pytest.raises(ToolError, match=r"hooks are gone \(code 100\)"):
        chain.check(pod)
    node.run("ip", "addr", "flush", "dev", "eth0", pod=pod)
    with pytest.raises(ToolError, match="bridge: "):
        chain.check(pod)


def test_check_leaves_the_agent_to_the_end_of_the_chain(node, conf, agent):
    """With `"accelerate": false` the main call's CHECK is the delegate's alone, as its ADD is."""
    conf["accelerate"] = False
    pod = node.pod()
    chain = node.chain(conf)
    chain.add(pod)
    chain.check(pod)
    assert agent.heard == []


def test_check_after_the_list_s_version_was_raised(node, conf, call):
    """A pod that was added at 0.3.1, which has no CHECK, passes that of 1.0.0."""
    pod = node.pod()
    result = node.chain(conf, version="0.3.1").add(pod)
    now = {"cniVersion": "1.0.0"}  # libcni converts what it has cached
    conf |= {**now, "name": "cbr0", "prevResult": {**result, **now}}
    env = {"CNI_CONTAINERID": "c-pod", "CNI_NETNS": str(pod.netns)}
    answer = call("CHECK", conf, plugin="flannel", namespace=node.namespace, **env)
    assert (answer.status, answer.document) == (0, None)


def test_check_of_an_unknown_container(conf, call):
    """CHECK of what was never added is error 3, unknown container."""
    conf |= {"cniVersion": "1.0.0", "name": "cbr0"}
    assert call("CHECK", conf, plugin="flannel").document["code"] == 3


def test_gc_unmakes_what_nobody_claims(conf, delegate, agent, call, tmp_path):
    """GC sends a DEL for every orphan of this network, then GC, to the delegate; the agent is asked
    once for all, for one that hangs takes five seconds each time.
    """
    conf |= {"cniVersion": "1.1.0", "name": "cbr0", "delegate": {"type": "maker"}}
    env = {"plugin": "flannel", "CNI_PATH": str(delegate)}
    for container, network in (("c1", "cbr0"), ("c2", "cbr0"), ("c3", "other")):
        added = call("ADD", {**conf, "name": network}, CNI_CONTAINERID=container, **env)
        assert added.status == 0
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    nobody = {"CNI_CONTAINERID": None, "CNI_IFNAME": None, "CNI_NETNS": None}
    answer = call("GC", {**conf, "cni.dev/valid-attachments": valid}, **nobody, **env)
    assert (answer.status, answer.document) == (0, None)
    assert sorted(file.name for file in (tmp_path / "flannel").iterdir()) == ["c1", "c3"]
    calls = (delegate / "calls").read_text(encoding="utf-8").splitlines()
    assert [line.split() for line in calls[3:]] == [["DEL", "c2", "eth0"], ["GC"]]
    told = json.loads((delegate / "stdin-GC").read_text(encoding="utf-8"))
    assert told["cni.dev/valid-attachments"] == valid
    assert agent.heard == [{"op": "gc", "network": "cbr0", "valid": [["c1", "eth0"]]}]


def test_gc_passes_by_what_is_no_note(conf, delegate, call, tmp_path):
    """What a killed ADD left of a note, or anyone else put there, does not keep the rest."""
    conf |= {"cniVersion": "1.1.0", "name": "cbr0", "delegate": {"type": "maker"}}
    env = {"plugin": "flannel", "CNI_PATH": str(delegate)}
    assert call("ADD", conf, CNI_CONTAINERID="z", **env).status == 0
    directory = tmp_path / "flannel"
    for name in (".c9", "c,a b"):
        (directory / name).write_bytes((directory / "z").read_bytes())
    (directory / "cdir").mkdir()
    answer = call("GC", {**conf, "cni.dev/valid-attachments": None}, **env)
    assert (answer.status, answer.document) == (0, None)
    assert sorted(file.name for file in directory.iterdir()) == [".c9", "c,a b", "cdir"]
    plain = {**conf, "dataDir": str(directory / ".c9"), "cni.dev/valid-attachments": []}
    assert call("GC", plain, **env).document["code"] == 5


def test_gc_goes_on_after_a_failure(conf, delegate, call):
    """An orphan that can't be unmade keeps neither the others nor the delegate's own GC."""
    conf |= {"cniVersion": "1.1.0", "name": "cbr0", "delegate": {"type": "maker"}}
    env = {"plugin": "flannel", "CNI_PATH": str(delegate)}
    for container in ("c1", "c2"):
        call("ADD", conf, CNI_CONTAINERID=container, **env)
    (delegate / "FAIL-DEL").write_text('{"code": 5, "msg": "disk"}', encoding="utf-8")
    answer = call("GC", {**conf, "cni.dev/valid-attachments": []}, **env)
    assert (answer.status, answer.document["code"]) == (1, 5)
    calls = (delegate / "calls").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in calls[2:]] == ["DEL", "DEL", "GC"]


def test_status(conf, delegate, agent, call, subnet_env, tmp_path):
    """STATUS is 50 without subnet.env, 51 without agent, and else what the delegate says."""
    conf |= {"cniVersion": "1.1.0", "name": "cbr0", "delegate": {"type": "maker"}}
    env = {"plugin": "flannel", "CNI_PATH": str(delegate)}
    assert call("STATUS", conf, **env).status == 0
    assert agent.heard == [{"op": "status"}]
    (delegate / "FAIL-STATUS").write_text('{"code": 50, "msg": "full"}', encoding="utf-8")
    assert call("STATUS", conf, **env).document["msg"].endswith("maker: full")
    gone = call("STATUS", {**conf, "stateDir": str(tmp_path / "nowhere")}, **env)
    assert (gone.status, gone.document["code"]) == (1, 51)
    subnet_env.unlink()
    answer = call("STATUS", conf, **env)
    assert (answer.status, answer.document["code"]) == (1, 50)
    assert "subnet.env" in answer.document["msg"]
