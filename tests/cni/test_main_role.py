# SPDX-License-Identifier: Apache-2.0
"""The main role, with the distribution's real plugins: what flannel's own plugin does."""

import json

import pytest


def noted(tmp_path, name):
    """What ADD noted down for DEL."""
    return json.loads((tmp_path / "flannel" / name).read_text(encoding="utf-8"))


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
    # Plugins from 1.9 on leave out a dns that is empty.
    assert {"dns": {}, **result} == {
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


def test_the_delegate_is_noted_first(conf, delegate, call, tmp_path):
    """When the delegate is called, what it is called with has been noted down, failure or not."""
    conf |= {"cniVersion": "1.1.0", "name": "cbr0", "delegate": {"type": "maker"}}
    (delegate / "FAIL-ADD").write_text('{"code": 11, "msg": "busy"}', encoding="utf-8")
    answer = call("ADD", conf, plugin="flannel", CNI_PATH=str(delegate))
    assert answer.document["code"] == 11
    before = (delegate / "noted-before" / "c1").read_bytes()
    assert before == (delegate / "stdin-ADD").read_bytes()
    assert noted(tmp_path, "c1") == {**json.loads(before), "refused": f"{delegate}/maker: busy"}


def test_the_pod_is_accelerated_after_it_is_made(node, conf, agent):
    """The agent hears of the pod with the veth and the address that the delegate gave it."""
    pod = node.pod()
    node.chain(conf).add(pod)
    (question,) = agent.heard
    assert (question["op"], question["host_ifname"]) == ("add", node.veth_of(pod))
    assert question["addresses"] == ["10.42.66.2"]


def test_acceleration_can_be_left_to_the_end_of_the_chain(node, conf, agent):
    """With `"accelerate": false` the agent hears of the pod from the chained call alone."""
    pod = node.pod()
    last = {"type": "vxlane", "stateDir": str(agent.state_dir)}
    chain = node.chain({**conf, "type": "vxlane", "accelerate": False}, last)
    chain.add(pod)
    assert [question["op"] for question in agent.heard] == ["add"]
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
