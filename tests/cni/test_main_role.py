"""The main role, with the distribution's real plugins: what flannel's own plugin does."""

import json

import pytest

from vxlane.loader.errors import LabError

VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"]
"""What the distribution's bridge plugin speaks, too."""
DELEGATE_PLUGIN = """\
#!/bin/sh
# A delegate of version 1.1.0: writes its calls down, fails where FAIL-<command> says how.
cd "$(dirname "$0")"
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS" >>calls
cat >"stdin-$CNI_COMMAND"
[ ! -e "FAIL-$CNI_COMMAND" ] || { cat "FAIL-$CNI_COMMAND"; exit 1; }
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.42.66.2/24"}]}'
"""


@pytest.fixture
def delegate(tmp_path):
    """A directory with the plugin `maker`, which speaks 1.1.0 as no distribution's does yet."""
    directory = tmp_path / "delegates"
    directory.mkdir()
    (directory / "maker").write_text(DELEGATE_PLUGIN, encoding="utf-8")
    (directory / "maker").chmod(0o755)
    return directory


def noted(tmp_path, name):
    """What ADD noted down for DEL."""
    return json.loads((tmp_path / "flannel" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("plugin", ["flannel", "vxlane"])
def test_a_pod_as_flannel_makes_it(node, conf, plugin, version):
    """Under either name a pod gets the interfaces, address and routes that flannel gives it."""
    pod = node.pod()
    result = node.chain({**conf, "type": plugin}, version=version).add(pod)
    bridge, veth, eth0 = result["interfaces"]
    assert (bridge["name"], veth["name"], eth0["name"]) == ("cni0", node.veth_of(pod), "eth0")
    assert eth0["sandbox"] == str(pod.netns)
    assert all(len(interface["mac"]) == 17 for interface in result["interfaces"])
    ip = {"interface": 2, "address": "10.42.66.2/24", "gateway": "10.42.66.1"}
    family = {} if version == "1.0.0" else {"version": "4"}
    assert result == {
        "cniVersion": version,
        "interfaces": result["interfaces"],
        "ips": [{**ip, **family}],
        "routes": [{"dst": "10.42.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.42.66.1"}],
        "dns": {},
    }
    assert "mtu 1450" in node.run("ip", "link", "show", "eth0", pod=pod).stdout
    assert node.run("ip", "route", pod=pod).stdout.splitlines() == [
        "default via 10.42.66.1 dev eth0 ",
        "10.42.0.0/16 via 10.42.66.1 dev eth0 ",
        "10.42.66.0/24 dev eth0 proto kernel scope link src 10.42.66.2 ",
    ]


def test_the_delegate_is_noted_as_flannel_does(node, conf, tmp_path):
    """What DEL will need is the delegate's configuration, in flannel's file and for root only."""
    node.chain(conf, version="0.3.1").add(node.pod())
    assert noted(tmp_path, "c-pod") == {
        "cniVersion": "0.3.1",
        "hairpinMode": True,
        "ipMasq": False,
        "ipam": {
            "dataDir": str(tmp_path / "networks"),
            "ranges": [[{"subnet": "10.42.66.0/24"}]],
            "routes": [{"dst": "10.42.0.0/16"}],
            "type": "host-local",
        },
        "isDefaultGateway": True,
        "isGateway": True,
        "mtu": 1450,
        "name": "cbr0",
        "type": "bridge",
    }
    assert (tmp_path / "flannel" / "c-pod").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "flannel").stat().st_mode & 0o777 == 0o700


def test_the_pod_is_accelerated_after_it_is_made(node, conf, agent):
    """The agent hears of the pod with the veth and the address that the delegate gave it."""
    pod = node.pod()
    node.chain(conf).add(pod)
    (question,) = agent.heard
    assert (question["op"], question["host_ifname"]) == ("attach", node.veth_of(pod))
    assert question["addresses"] == ["10.42.66.2"]


def test_acceleration_can_be_left_to_the_end_of_the_chain(node, conf, agent):
    """With `"accelerate": false` the agent hears of the pod from the chained call alone."""
    pod = node.pod()
    last = {"type": "vxlane", "stateDir": str(agent.state_dir)}
    chain = node.chain({**conf, "type": "vxlane", "accelerate": False}, last)
    chain.add(pod)
    assert [question["op"] for question in agent.heard] == ["attach"]
    chain.delete(pod)
    assert "veth" not in node.run("ip", "-br", "link").stdout


def test_masquerade_is_the_bridge_s_when_the_agent_does_none(node, conf, subnet_env, tmp_path):
    """FLANNEL_IPMASQ=false has the bridge plugin masquerade, unless the delegate says otherwise."""
    masquerading = subnet_env.read_text(encoding="ascii")
    subnet_env.write_text(masquerading.replace("=true", "=false"), encoding="ascii")
    chain = node.chain(conf)
    chain.add(node.pod())
    assert noted(tmp_path, "c-pod")["ipMasq"] is True
    conf["delegate"]["ipMasq"] = False
    node.chain(conf).add(node.pod("other"))
    assert noted(tmp_path, "c-other")["ipMasq"] is False


def test_delegate_and_ipam_of_the_user_win(node, conf, tmp_path):
    """What the configuration sets itself is kept; routes come before the overlay's."""
    conf["delegate"] |= {"mtu": 1300, "bridge": "br9"}
    conf["ipam"]["routes"] = [{"dst": "192.0.2.0/24"}]
    result = node.chain(conf).add(node.pod())
    assert result["interfaces"][0]["name"] == "br9"
    assert [route["dst"] for route in result["routes"]][:2] == ["192.0.2.0/24", "10.42.0.0/16"]
    assert noted(tmp_path, "c-pod")["mtu"] == 1300


def test_dual_stack_and_several_networks(node, conf, subnet_env):
    """Either family of subnet.env, and every network of a comma list, reaches the pod."""
    subnet_env.write_text(
        "FLANNEL_NETWORK=10.42.0.0/16,10.43.0.0/16\nFLANNEL_SUBNET=10.42.66.1/24\n"
        "FLANNEL_IPV6_NETWORK=fd42::/48\nFLANNEL_IPV6_SUBNET=fd42:0:0:66::1/64\n"
        "FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\nSOMETHING_NEW=1\n",
        encoding="ascii",
    )
    result = node.chain(conf).add(node.pod())
    assert [ip["address"] for ip in result["ips"]] == ["10.42.66.2/24", "fd42:0:0:66::2/64"]
    overlay = ["10.42.0.0/16", "10.43.0.0/16", "fd42::/48"]
    assert [route["dst"] for route in result["routes"]][:3] == overlay


def test_runtime_config_reaches_the_delegate(node, conf, agent):
    """A capability that the entry declares is the delegate's, such as a pod's wanted MAC."""
    conf["capabilities"] = {"mac": True}
    node.chain(conf).add(node.pod(mac="02:00:00:00:00:07"))
    assert agent.heard[0]["mac"] == "02:00:00:00:00:07"


@pytest.mark.parametrize("version", VERSIONS)
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


def test_delete_by_the_bare_type_alone(node, tmp_path, subnet_env, agent, call):
    """An entry that says neither flannel nor delegate is remembered to have had the main role."""
    pod = node.pod()
    places = {"subnetFile": str(subnet_env), "dataDir": str(tmp_path / "flannel")}
    conf = {"cniVersion": "0.3.1", "name": "cbr0", "type": "vxlane"}
    conf["stateDir"] = str(agent.state_dir)
    env = {"namespace": node.namespace, "CNI_NETNS": str(pod.netns)}
    added = call("ADD", {**conf, **places}, **env)
    assert added.status == 0
    assert call("DEL", {**conf, **places}, **env).status == 0
    assert not list((tmp_path / "flannel").iterdir())


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


@pytest.mark.parametrize(
    ("said", "code"), [("not JSON", 5), ('{"msg": "no code"}', 999), ("", 999)]
)
def test_failure_of_a_delegate_without_error_object(conf, delegate, call, said, code):
    """A delegate that fails without an error object is an error object all the same."""
    (delegate / "FAIL-ADD").write_text(said, encoding="utf-8")
    conf |= {"cniVersion": "1.1.0", "name": "cbr0", "delegate": {"type": "maker"}}
    answer = call("ADD", conf, plugin="flannel", CNI_PATH=str(delegate))
    assert (answer.status, answer.document["code"]) == (1, code)
    assert "maker" in answer.document["msg"]


def test_check_asks_delegate_and_agent(node, conf, agent):
    """CHECK passes while interface and hooks are there, and fails when either isn't."""
    pod = node.pod()
    chain = node.chain(conf)
    chain.add(pod)
    chain.check(pod)
    assert agent.heard[-1]["op"] == "check"
    agent.answer = {"ok": False, "error": "hooks are gone"}
    with pytest.raises(LabError, match=r"hooks are gone \(code 100\)"):
        chain.check(pod)
    node.run("ip", "addr", "flush", "dev", "eth0", pod=pod)
    with pytest.raises(LabError, match="bridge: "):
        chain.check(pod)


def test_check_of_an_unknown_container(conf, call):
    """CHECK of what was never added is error 3, unknown container."""
    conf |= {"cniVersion": "1.0.0", "name": "cbr0"}
    assert call("CHECK", conf, plugin="flannel").document["code"] == 3


def test_gc_unmakes_what_nobody_claims(conf, delegate, agent, call, tmp_path):
    """GC sends a DEL for every orphan of this network, then GC, to the delegate."""
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
    assert agent.heard[-2:] == [
        {"op": "gc", "network": "cbr0", "valid": [["c1", "eth0"]]},
        {"op": "detach", "container_id": "c2", "ifname": "eth0"},
    ]


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
