# SPDX-License-Identifier: Apache-2.0
"""The chained role, behind the distribution's real plugins, beside an agent's stand-in."""

import json
import socket
import threading
import time

import pytest

from vxlane.errors import ToolError


def vxlane(agent, **keys):
    """Our entry in a network's list."""
    return {"type": "vxlane", "stateDir": str(agent.state_dir), **keys}


def made_by(node, pod, *plugins, version="1.0.0"):
    """The result of a chain without us, and the attachment undone again."""
    chain = node.chain(*plugins, version=version)
    result = chain.add(pod)
    chain.delete(pod)
    return result


def test_add_passes_the_result_on(node, agent, version):
    """ADD answers with the very result that the plugins before it made, in every version."""
    pod = node.pod()
    chain = node.chain(node.bridge(), vxlane(agent), version=version)
    result = chain.add(pod)
    bridge, veth, eth0 = result["interfaces"]
    assert (bridge["name"], veth["name"], eth0["name"]) == ("cni0", node.veth_of(pod), "eth0")
    assert result["cniVersion"] == version
    assert result["ips"][0].get("version") == (None if version == "1.0.0" else "4")
    assert result["ips"][0]["gateway"] == "10.42.1.1"
    assert {route["dst"] for route in result["routes"]} == {"10.42.0.0/16", "0.0.0.0/0"}


def test_the_agent_is_told_what_the_kernel_says(node, agent):
    """The attach names the pod's veth, MAC, addresses, namespace, network and Kubernetes name."""
    pod = node.pod("web")
    result = node.chain(node.bridge(), vxlane(agent)).add(pod)
    assert agent.heard == [
        {
            "op": "add",
            "container_id": "c-web",
            "ifname": "eth0",
            "network": "cbr0",
            "netns": str(pod.netns),
            "host_ifname": node.veth_of(pod),
            "mac": result["interfaces"][2]["mac"],
            "addresses": ["10.42.1.2"],
            "name": "shop/web",
        }
    ]


def test_veth_is_found_by_peer_index(node, agent, call):
    """The order and the number of prevResult's interfaces do not matter."""
    pod = node.pod()
    result = node.chain(node.bridge()).add(pod)
    shuffled = [*reversed(result["interfaces"]), {"name": "bwp0", "mac": "x"}]
    shuffled[0:0] = [{"name": "vethother"}]
    result |= {"interfaces": shuffled, "ips": [{"address": "10.42.1.2/24", "interface": 1}]}
    conf = {"cniVersion": "1.0.0", "name": "cbr0", **vxlane(agent), "prevResult": result}
    answer = call("ADD", conf, namespace=node.namespace, CNI_NETNS=str(pod.netns))
    assert (answer.status, answer.stderr) == (0, "")
    assert answer.document == result
    assert agent.heard[0]["host_ifname"] == node.veth_of(pod)


def test_result_of_another_version_is_converted(node, agent, call):
    """A prevResult of version 0.4.0 comes back in the configuration's 1.0.0, and the reverse."""
    pod = node.pod()
    old = node.chain(node.bridge(), version="0.4.0").add(pod)
    new = {**old, "cniVersion": "1.0.0", "ips": [{**old["ips"][0]}]}
    del new["ips"][0]["version"]
    for given, version, wanted in ((old, "1.0.0", new), (new, "0.4.0", old)):
        conf = {"cniVersion": version, "name": "cbr0", **vxlane(agent), "prevResult": given}
        answer = call("ADD", conf, namespace=node.namespace, CNI_NETNS=str(pod.netns))
        assert answer.document == wanted


def test_newer_fields_are_left_out_of_older_versions(agent, call):
    """Going below 1.1.0 a result loses the fields that only 1.1.0 knows, and nothing else."""
    interface = {"name": "eth0", "sandbox": "/x", "mtu": 1450, "socketPath": "/s", "odd": 1}
    given = {
        "cniVersion": "1.1.0",
        "interfaces": [interface],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.42.1.1", "mtu": 1400, "priority": 5}],
        "dns": {"search": ["x"]},
    }
    conf = {"cniVersion": "1.0.0", "name": "cbr0", **vxlane(agent), "prevResult": given}
    assert call("ADD", conf).document == {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/x", "odd": 1}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.42.1.1"}],
        "dns": {"search": ["x"]},
    }


def test_without_agent_the_pod_works(node, tmp_path, call):
    """With no agent the ADD succeeds, says so on stderr only, and the pod has its network."""
    pod = node.pod()
    result = node.chain(node.bridge()).add(pod)
    conf = {"cniVersion": "1.0.0", "name": "cbr0", "type": "vxlane", "prevResult": result}
    conf["stateDir"] = str(tmp_path / "nowhere")
    said = call("ADD", conf, namespace=node.namespace, CNI_NETNS=str(pod.netns))
    assert (said.status, said.document) == (0, result)
    assert said.stderr.startswith("vxlane: ADD c1 eth0: stays on the kernel path: no agent at ")
    assert "1 received" in node.run("ping", "-c1", "-W2", "10.42.1.1", pod=pod).stdout


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"ok": True, "accelerated": False, "reason": "veth has a tbf"}, "veth has a tbf"),
        ({"ok": False, "error": "out of memory"}, "the agent says: out of memory"),
        ({"ok": True}, "the agent does not say why"),
        ([], "no JSON object"),
    ],
)
def test_refusal_fails_open(node, agent, call, answer, reason):
    """What the agent refuses is a line on stderr and no error."""
    pod = node.pod()
    result = node.chain(node.bridge()).add(pod)
    agent.answer = answer
    conf = {"cniVersion": "1.0.0", "name": "cbr0", **vxlane(agent), "prevResult": result}
    said = call("ADD", conf, namespace=node.namespace, CNI_NETNS=str(pod.netns))
    assert (said.status, said.document) == (0, result)
    assert said.stderr.startswith("vxlane: ADD c1 eth0: stays on the kernel path: ")
    assert reason in said.stderr
    assert said.stderr.count("\n") == 1


def test_required_turns_refusals_into_errors(node, agent, call):
    """With `required` a pod that can't be accelerated is error 11, try again later."""
    pod = node.pod()
    result = node.chain(node.bridge()).add(pod)
    agent.answer = {"ok": True, "accelerated": False, "reason": "no bridge"}
    conf = {"cniVersion": "1.0.0", "name": "cbr0", **vxlane(agent, required=True)}
    said = call(
        "ADD", {**conf, "prevResult": result}, namespace=node.namespace, CNI_NETNS=str(pod.netns)
    )
    assert said.status == 1
    assert said.document["code"] == 11
    assert said.document["msg"] == "eth0 is not accelerated: no bridge"
    assert said.document["cniVersion"] == "1.0.0"


def no_pod_veth(node, agent, call, pod):
    """What ADD says of an interface that no plugin reported."""
    conf = {"cniVersion": "1.0.0", "name": "cbr0", **vxlane(agent), "prevResult": {}}
    answer = call("ADD", conf, namespace=node.namespace, CNI_NETNS=str(pod.netns))
    assert (answer.status, agent.heard) == (0, [])
    return answer.stderr


def test_no_interface(node, agent, call):
    """A container without the interface stays on the kernel path."""
    said = no_pod_veth(node, agent, call, node.pod())
    assert "eth0 or its other end is not there: No such device" in said


def test_interface_that_is_no_veth(node, agent, call):
    """A container's interface of another kind stays on the kernel path."""
    pod = node.pod()
    node.run("ip", "link", "add", "eth0", "type", "bridge", pod=pod)
    assert "eth0 is not a veth" in no_pod_veth(node, agent, call, pod)


def test_veth_that_ends_elsewhere(node, agent, call):
    """An interface of the node with the index of a foreign veth's far end is not taken for it."""
    pod = node.pod()
    node.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1", pod=pod)
    eth0 = json.loads(node.run("ip", "-j", "link", "show", "eth1", pod=pod).stdout)[0]
    node.run("ip", "link", "add", "br0", "index", str(eth0["ifindex"]), "type", "bridge")
    assert "eth0 is not in this network namespace" in no_pod_veth(node, agent, call, pod)


def test_veth_that_the_result_does_not_name(node, agent, call):
    """A veth that no plugin reported is not ours to touch."""
    pod = node.pod()
    result = node.chain(node.bridge()).add(pod)
    del result["interfaces"][1]
    result["ips"] = []
    conf = {"cniVersion": "1.0.0", "name": "cbr0", **vxlane(agent), "prevResult": result}
    answer = call("ADD", conf, namespace=node.namespace, CNI_NETNS=str(pod.netns))
    assert (answer.status, agent.heard) == (0, [])
    assert "does not name veth" in answer.stderr


@pytest.mark.parametrize("netns", ["/run/netns/none", "/etc/passwd", "/dev/null", "/"])
def test_dead_namespace_at_add(agent, call, netns):
    """A namespace that is none is the runtime's affair: the result is passed on."""
    conf = {"cniVersion": "1.0.0", "name": "cbr0", **vxlane(agent), "prevResult": {"ips": []}}
    answer = call("ADD", conf, CNI_NETNS=netns)
    assert (answer.status, answer.document) == (0, {"cniVersion": "1.0.0", "ips": []})
    assert "stays on the kernel path" in answer.stderr


def test_delete_detaches(node, agent, version):
    """DEL tells the agent, whatever the version, and the pod goes."""
    pod = node.pod()
    chain = node.chain(node.bridge(), vxlane(agent), version=version)
    chain.add(pod)
    chain.delete(pod)
    assert agent.heard[1:] == [{"op": "remove", "container_id": "c-pod", "ifname": "eth0"}]
    assert "veth" not in node.run("ip", "-br", "link").stdout


@pytest.mark.parametrize("netns", [None, "", "/run/netns/none", "/proc/self/ns/net"])
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("previous", [None, {}, [], {"ips": 3}])
def test_delete_always_succeeds(tmp_path, call, netns, required, previous):
    """DEL succeeds with no namespace, no or an odd prevResult, no agent, no ADD, and twice."""
    conf = {"cniVersion": "1.0.0", "name": "cbr0", "type": "vxlane", "stateDir": str(tmp_path)}
    conf |= {"required": required, "prevResult": previous}
    for _ in range(2):
        answer = call("DEL", conf, CNI_NETNS=netns)
        assert (answer.status, answer.document) == (0, None)


def test_delete_leaves_flannel_its_pod(tmp_path, agent, call):
    """DEL behind the flannel plugin never touches what that one noted down for its own DEL."""
    noted = tmp_path / "flannel" / "c1"
    noted.parent.mkdir()
    noted.write_text(json.dumps({"type": "no-such-plugin", "name": "cbr0"}), encoding="utf-8")
    conf = {"cniVersion": "0.3.1", "name": "cbr0", **vxlane(agent)}
    assert call("DEL", conf).status == 0
    assert noted.exists()


def test_failed_add_is_undone_by_the_runtime(node, tmp_path):
    """A required ADD without agent fails the chain, and the runtime's DEL leaves nothing."""
    pod = node.pod()
    plugin = {"type": "vxlane", "stateDir": str(tmp_path / "nowhere"), "required": True}
    with pytest.raises(ToolError, match=r"not accelerated: no agent .* \(code 11\)"):
        node.chain(node.bridge(), plugin).add(pod)
    assert "veth" not in node.run("ip", "-br", "link").stdout
    assert not list((tmp_path / "networks" / "cbr0").glob("10.*"))


def test_stdout_that_is_closed(agent, call):
    """A call without an answer succeeds though there is nowhere to write one."""
    conf = {"cniVersion": "1.0.0", "name": "cbr0", **vxlane(agent)}
    answer = call("DEL", conf, wrap=["sh", "-c", 'exec "$0" >&-'])
    assert (answer.status, answer.stderr) == (0, "")


@pytest.mark.usefixtures("_machine")
def test_data_directory_that_is_none(agent, call, tmp_path):
    """A chained DEL succeeds though where main roles keep their notes there is a file."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "cni").touch()
    conf = {"cniVersion": "1.0.0", "name": "cbr0", **vxlane(agent)}
    mount = f'mount --bind "{tmp_path}/lib" /var/lib; exec "$0"'
    answer = call("DEL", conf, wrap=["unshare", "--mount", "sh", "-ec", mount])
    assert (answer.status, answer.document) == (0, None)


@pytest.mark.parametrize("command", ["ADD", "DEL"])
@pytest.mark.parametrize("where", ["/dev/full", "&-"])
def test_log_that_takes_nothing(tmp_path, call, command, where):
    """A stderr that is closed, or full, costs the pod nothing and goes nowhere else."""
    conf = {"cniVersion": "1.0.0", "name": "cbr0", "type": "vxlane", "prevResult": {}}
    conf["stateDir"] = str(tmp_path)
    answer = call(command, conf, wrap=["sh", "-c", f'exec "$0" 2>{where}'])
    document = {"cniVersion": "1.0.0"} if command == "ADD" else None
    assert (answer.status, answer.document) == (0, document)


def test_silent_agent_costs_seconds_not_the_pod(tmp_path, call):
    """An agent that takes the question and never answers is given up after five seconds."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        conf = {"cniVersion": "1.0.0", "name": "cbr0", "type": "vxlane"}
        began = time.monotonic()
        answer = call("DEL", {**conf, "stateDir": str(tmp_path)})
    assert 4.9 < time.monotonic() - began < 10
    assert answer.status == 0
    assert "the agent does not answer" in answer.stderr


@pytest.mark.parametrize("said", [b"", b'{"ok": tr'])
def test_an_agent_that_ends_meanwhile(tmp_path, call, said):
    """Half an answer, or none, costs the pod nothing, and is no matter of JSON."""

    def end(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(said)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        threading.Thread(target=end, args=(listener,), daemon=True).start()
        conf = {"cniVersion": "1.0.0", "name": "cbr0", "type": "vxlane"}
        answer = call("DEL", {**conf, "stateDir": str(tmp_path)})
    assert answer.status == 0
    assert "the agent ended before it answered" in answer.stderr
