# SPDX-License-Identifier: Apache-2.0
"""What the main role does without an agent, and with files and delegates that it can't use."""

import pytest

from vxlane.errors import ToolError


def test_without_agent_the_pod_works(node, conf, tmp_path):
    """With no agent the pod is made all the same; with `required` that is error 11."""
    conf["stateDir"] = str(tmp_path / "nowhere")
    pod = node.pod()
    node.chain(conf).add(pod)
    assert "1 received" in node.run("ping", "-c1", "-W2", "10.42.66.1", pod=pod).stdout
    with pytest.raises(ToolError, match=r"\(code 11\)"):
        node.chain({**conf, "required": True}).add(node.pod("other"))


@pytest.mark.parametrize(
    "name", ["FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ"]
)
def test_incomplete_subnet_env(conf, subnet_env, call, name, tmp_path):
    """A subnet.env without any one of its values is error 11, names the value, makes nothing."""
    lines = subnet_env.read_text(encoding="ascii").splitlines()
    rest = [line for line in lines if not line.startswith(name)]
    assert len(rest) == len(lines) - 1
    subnet_env.write_text("\n".join(rest) + "\n", encoding="ascii")
    answer = call("ADD", {"cniVersion": "1.0.0", "name": "cbr0", **conf}, plugin="flannel")
    assert (answer.status, answer.document["code"]) == (1, 11)
    assert name in answer.document["msg"]
    assert not (tmp_path / "flannel").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"FLANNEL_SUBNET=nonsense", "'nonsense'"),
        (b"FLANNEL_MTU=big", "'big'"),
        (b"\xff", "can't decode byte 0xff"),
    ],
)
def test_nonsense_in_subnet_env(conf, subnet_env, call, line, words):
    """A subnet.env with nonsense in it is error 11 with the nonsense in its message."""
    subnet_env.write_bytes(subnet_env.read_bytes() + line + b"\n")
    answer = call("ADD", {"cniVersion": "1.0.0", "name": "cbr0", **conf}, plugin="flannel")
    assert (answer.status, answer.document["code"]) == (1, 11)
    assert words in answer.document["msg"]


@pytest.mark.parametrize(
    "delegate",
    [
        {"name": "x"},
        {"ipam": {}},
        {"type": 3},
        {"type": ""},
        {"type": "../bridge"},
        {"type": "flannel"},
        [],
        "bridge",
    ],
)
def test_delegates_that_flannel_refuses(conf, call, delegate, tmp_path):
    """A delegate with a name, an ipam or no type of its own is error 7, and makes nothing."""
    conf |= {"cniVersion": "1.0.0", "name": "cbr0", "delegate": delegate}
    answer = call("ADD", conf, plugin="flannel")
    assert (answer.status, answer.document["code"]) == (1, 7)
    assert "delegate" in answer.document["msg"]
    assert not (tmp_path / "flannel").exists()


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"accelerate": "no"}, 7),
        ({"required": "yes"}, 7),
        ({"stateDir": 3}, 7),
        ({"ipam": {"type": 3}}, 7),
        ({"ipam": {"type": "../host-local"}}, 7),
        ({"ipam": {"type": "host-locall"}}, 5),
        ({"delegate": {"type": "brigde"}}, 5),
        ({"delegate": {"type": "\ud800"}}, 7),
    ],
    ids=str,
)
def test_mistakes_are_found_before_anything_is_made(node, conf, call, keys, code, tmp_path):
    """A wrong value, or the name of no plugin, leaves nothing that a DEL could not undo."""
    pod = node.pod()
    conf |= {"cniVersion": "1.0.0", "name": "cbr0"}
    env = {"plugin": "flannel", "namespace": node.namespace, "CNI_NETNS": str(pod.netns)}
    answer = call("ADD", {**conf, **keys}, **env)
    assert (answer.status, answer.document["code"]) == (1, code), answer.document
    assert not (tmp_path / "flannel").exists()
    assert "cni0" not in node.run("ip", "-br", "link").stdout
    assert call("DEL", conf, **env).status == 0


@pytest.mark.parametrize(
    "delegate", [{"hairpinMode": "true"}, {"mtu": "big"}, {"mtu": 1450, "vlan": "x"}], ids=str
)
def test_configuration_that_the_delegate_can_t_read(node, conf, call, delegate, tmp_path):
    """What bridge refuses to ADD and in the same words to DEL does not fail every DEL."""
    pod = node.pod()
    conf |= {"cniVersion": "1.0.0", "name": "cbr0"}
    env = {"plugin": "flannel", "namespace": node.namespace, "CNI_NETNS": str(pod.netns)}
    answer = call("ADD", {**conf, "delegate": delegate}, **env)
    assert answer.status == 1
    assert "bridge: failed to load netconf" in answer.document["msg"]
    assert list((tmp_path / "flannel").iterdir())
    for _ in range(2):
        assert call("DEL", {**conf, "delegate": delegate}, **env).status == 0
        assert not list((tmp_path / "flannel").iterdir())
    assert call("ADD", conf, **env).status == 0


def test_note_that_the_disk_does_not_take_whole(conf, call, delegate, tmp_path):
    """A disk that is full in the middle of a note is error 5, before the delegate is called."""
    conf |= {"cniVersion": "1.0.0", "name": "cbr0", "delegate": {"type": "maker", "x": "x" * 2000}}
    env = {"plugin": "flannel", "CNI_PATH": str(delegate)}
    wrap = ["sh", "-c", 'ulimit -f 1 && exec "$0"']
    answer = call("ADD", conf, wrap=wrap, **env)
    assert (answer.status, answer.document["code"]) == (1, 5), answer
    assert answer.document["msg"] == f"can't write {tmp_path}/flannel/c1: File too large"
    assert not (delegate / "calls").exists()
    assert call("DEL", conf, **env).status == 0


def test_delegate_that_is_not_installed(conf, call, tmp_path):
    """A delegate that is in no directory of CNI_PATH is error 5 and names the directories."""
    conf |= {"cniVersion": "1.0.0", "name": "cbr0"}
    answer = call("ADD", conf, plugin="flannel", CNI_PATH=f"{tmp_path}:/nowhere")
    assert answer.document["code"] == 5
    assert answer.document["msg"] == f"no plugin bridge in CNI_PATH={tmp_path}:/nowhere"
    assert call("ADD", conf, plugin="flannel", CNI_PATH=None).document["code"] == 4
