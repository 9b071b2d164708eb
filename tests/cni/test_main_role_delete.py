# SPDX-License-Identifier: Apache-2.0
"""The main role's DEL, with the distribution's real plugins: nothing is left of any pod."""

import json

import pytest

from vxlane.lab.pods import PLUGINS


@pytest.mark.parametrize("plugin", ["flannel", "vxlane"])
def test_delete_leaves_nothing(node, conf, tmp_path, plugin, version):
    """DEL frees veth, address and note, with subnet.env gone, and succeeds twice."""
    pod = node.pod()
    chain = node.chain({**conf, "type": plugin}, version=version)
    chain.add(pod)
    (tmp_path / "subnet.env").unlink()
    for _ in range(2):
        chain.delete(pod)
        assert "veth" not in node.run("ip", "-br", "link").stdout
        assert not list((tmp_path / "networks" / "cbr0").glob("10.*"))
        assert not list((tmp_path / "flannel").iterdir())


# /run and /var/lib for one call: the directories of the test's own in their places.
IN_DEFAULT_PLACES = """\
mount --rbind /run/netns "$1/netns"
mount --bind "$1/run" /run
mount --bind "$1/lib" /var/lib
exec "$0"
"""


def test_delete_by_the_bare_type_alone(node, subnet_env, tmp_path, binaries):
    """An entry that says neither flannel nor delegate is remembered to have had the main role."""
    for name in ("netns", "run/flannel", "lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "run" / "flannel" / "subnet.env").write_bytes(subnet_env.read_bytes())
    pod = node.pod()

    def call(command):
        wrap = ["unshare", "--mount", "sh", "-ec", IN_DEFAULT_PLACES]
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
        env |= {"CNI_NETNS": str(tmp_path / "netns" / pod.netns.name), "CNI_PATH": str(PLUGINS)}
        argv = [*wrap, str(binaries / "vxlane"), str(tmp_path)]
        conf = {"cniVersion": "0.3.1", "name": "cbr0", "type": "vxlane"}
        return node.run(*argv, stdin=json.dumps(conf), env=env).stdout

    lib = tmp_path / "lib" / "cni"
    assert json.loads(call("ADD"))["ips"][0]["address"] == "10.42.66.2/24"
    assert (lib / "flannel" / "c1").exists()
    assert (lib / "networks" / "cbr0" / "10.42.66.2").exists()
    assert call("DEL") == ""
    assert not list((lib / "flannel").iterdir())
    assert not list((lib / "networks" / "cbr0").glob("10.*"))


def test_two_interfaces_of_one_container(node, conf, tmp_path):
    """Each interface of a container has its own note, so that both are unmade."""
    pod = node.pod()
    chain = node.chain(conf)
    second = type(pod)(pod.container_id, pod.netns, ifname="net1")
    conf["delegate"]["isDefaultGateway"] = False
    chain.add(pod)
    chain.add(second)
    names = sorted(file.name for file in (tmp_path / "flannel").iterdir())
    assert names == ["c-pod", "c-pod,net1"]
    chain.delete(pod)
    assert len(list((tmp_path / "networks" / "cbr0").glob("10.*"))) == 1
    chain.delete(second)
    assert not list((tmp_path / "networks" / "cbr0").glob("10.*"))


def test_a_pod_that_flannel_made_is_deleted(node, conf, tmp_path, call, agent):
    """What flannel's own plugin noted down is enough for our DEL."""
    pod = node.pod()
    node.chain(conf).add(pod)  # byte for byte what flannel notes; see the test of that
    answer = call(
        "DEL",
        {"cniVersion": "0.3.1", "name": "cbr0", "type": "flannel"}
        | {"dataDir": conf["dataDir"], "stateDir": str(agent.state_dir)},
        plugin="flannel",
        namespace=node.namespace,
        CNI_CONTAINERID="c-pod",
        CNI_NETNS=str(pod.netns),
    )
    assert answer.status == 0
    assert not list((tmp_path / "networks" / "cbr0").glob("10.*"))


def test_another_interface_that_flannel_made(conf, delegate, tmp_path, call):
    """Flannel notes by the container alone: its net1 is deleted, and lives through a GC."""
    conf |= {"cniVersion": "1.1.0", "name": "cbr0", "delegate": {"type": "maker"}}
    env = {"plugin": "flannel", "CNI_PATH": str(delegate)}
    note = tmp_path / "flannel" / "c5"
    note.parent.mkdir()
    note.write_text(json.dumps({"type": "maker", "name": "cbr0"}), encoding="utf-8")
    valid = [{"containerID": "c5", "ifname": "net1"}]
    assert call("GC", {**conf, "cni.dev/valid-attachments": valid}, **env).status == 0
    assert note.exists()
    assert call("DEL", conf, CNI_CONTAINERID="c5", CNI_IFNAME="net1", **env).status == 0
    calls = (delegate / "calls").read_text(encoding="utf-8").splitlines()
    assert [line.split()[:3] for line in calls] == [["GC", "c1", "eth0"], ["DEL", "c5", "net1"]]
    assert call("GC", {**conf, "cni.dev/valid-attachments": []}, **env).status == 0
    assert not note.exists()


def test_note_of_another_network(conf, delegate, tmp_path, agent, call):
    """A bare main role's note of eth0 says nothing of an interface that another network made."""
    note = tmp_path / "flannel" / "c5"
    note.parent.mkdir()
    noted = {"type": "maker", "name": "cbr0", "madeBy": "vxlane"}
    note.write_text(json.dumps(noted), encoding="utf-8")
    other = {"cniVersion": "0.3.1", "name": "other", "stateDir": str(agent.state_dir)}
    other |= {"type": "flannel", "dataDir": conf["dataDir"]}
    env = {"CNI_CONTAINERID": "c5", "CNI_IFNAME": "net1", "CNI_PATH": str(delegate)}
    assert call("DEL", other, plugin="flannel", **env).status == 0
    assert not (delegate / "calls").exists()
    assert note.exists()


def test_delegate_that_talks(conf, delegate, call):
    """A delegate's output for a DEL that succeeds is dropped, and no failure."""
    conf |= {"cniVersion": "1.1.0", "name": "cbr0", "delegate": {"type": "maker"}}
    env = {"plugin": "flannel", "CNI_PATH": str(delegate)}
    assert call("ADD", conf, **env).status == 0
    maker = delegate / "maker"
    maker.write_text(maker.read_text(encoding="utf-8") + "echo done\n", encoding="utf-8")
    answer = call("DEL", conf, **env)
    assert (answer.status, answer.document) == (0, None)


def test_dead_pod_is_deleted(node, conf, tmp_path):
    """DEL without a namespace frees the address, though the veth went with its pod."""
    pod = node.pod()
    chain = node.chain(conf)
    chain.add(pod)
    node.run("ip", "link", "del", "eth0", pod=pod)
    chain.delete(type(pod)(pod.container_id, ""))
    assert not list((tmp_path / "networks" / "cbr0").glob("10.*"))


def test_unreadable_note(conf, call, tmp_path):
    """A note that is not JSON undoes nothing, goes away and does not keep a pod from going."""
    (tmp_path / "flannel").mkdir()
    (tmp_path / "flannel" / "c1").write_bytes(b'{"type": ')
    answer = call("DEL", {"cniVersion": "1.0.0", "name": "cbr0", **conf}, plugin="flannel")
    assert (answer.status, answer.document) == (0, None)
    assert not list((tmp_path / "flannel").iterdir())


KILLED = "#!/bin/sh\ncat >/dev/null\nkill -9 $$\n"


@pytest.mark.parametrize(
    ("killed", "words"),
    [("bridge", "bridge ended with status -9"), ("host-local", "bridge: netplugin failed")],
)
def test_killed_delegate_has_not_refused(node, conf, call, delegate, tmp_path, killed, words):
    """A delegate or IPAM killed at ADD and at DEL keeps its note, and a later DEL does it."""
    pod = node.pod()
    conf |= {"cniVersion": "1.0.0", "name": "cbr0"}
    (delegate / killed).write_text(KILLED, encoding="utf-8")
    (delegate / killed).chmod(0o755)
    env = {"plugin": "flannel", "namespace": node.namespace, "CNI_NETNS": str(pod.netns)}
    killing = env | {"CNI_PATH": f"{delegate}:{PLUGINS}"}
    for command in ("ADD", "DEL"):
        answer = call(command, conf, **killing)
        assert answer.status == 1, command
        assert words in answer.document["msg"]
        assert (tmp_path / "flannel" / "c1").exists()
    assert call("DEL", conf, **env).status == 0
    assert not list((tmp_path / "flannel").iterdir())


def test_failed_delete_can_be_repeated(conf, tmp_path, delegate, call):
    """When the delegate fails to DEL, the note stays and the next DEL does it."""
    conf["delegate"] = {"type": "maker"}
    conf |= {"cniVersion": "1.1.0", "name": "cbr0"}
    env = {"plugin": "flannel", "CNI_PATH": str(delegate)}
    assert call("ADD", conf, **env).status == 0
    (delegate / "FAIL-DEL").write_text('{"code": 11, "msg": "busy"}', encoding="utf-8")
    answer = call("DEL", conf, **env)
    assert (answer.document["code"], answer.document["cniVersion"]) == (11, "1.1.0")
    assert answer.document["msg"].endswith("maker: busy")
    assert (tmp_path / "flannel" / "c1").exists()
    (delegate / "FAIL-DEL").unlink()
    assert call("DEL", conf, **env).status == 0
    assert not (tmp_path / "flannel" / "c1").exists()
