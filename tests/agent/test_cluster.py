# SPDX-License-Identifier: Apache-2.0
"""The agent with nodes of a cluster: a stand-in for the Kubernetes API server, a real etcd."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agentnode import AgentNode, eventually, make_pod
from apiserver import PREFIX, ApiServer, make_node
from etcdserver import EtcdServer
from standing import entered

from vxlane.sources.model import derived_mac
from vxlane.sources.steering import BYPASS, REPORT

OWN = "node-00001"
NET_CONF = {"Network": "10.64.0.0/10", "Backend": {"Type": "vxlan"}}


class Cluster:
    """A node whose agent follows an API server that is in the node's own namespace."""

    def __init__(self, node: AgentNode, directory: Path) -> None:
        self.node = node
        self.api = ApiServer()
        node.sh("ip addr add 172.16.0.1/16 dev eth0; ip route add default via 172.16.0.254")
        with entered(node.netns):
            self.api.up()
        kubeconfig = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.api.url}}],
        }
        (directory / "kubeconfig").write_text(json.dumps(kubeconfig))
        (directory / "net-conf.json").write_text(json.dumps(NET_CONF))
        self._options = [
            "-kube-subnet-mgr",
            f"--kubeconfig-file={directory}/kubeconfig",
            f"-net-config-path={directory}/net-conf.json",
            "--iface=172.16.0.1",
        ]

    def start(self, *, prefix: str = PREFIX, **options: Any) -> None:
        """Start the agent."""
        env = {"NODE_NAME": OWN}
        more = f"--kube-annotation-prefix={prefix}"
        self.node.start(*self._options, more, nodes=False, node_name="", env=env, **options)

    def condition(self, kind: str) -> str | None:
        """The status of one of our own node's conditions."""
        conditions = self.api.nodes[OWN]["status"]["conditions"]
        return next((c["status"] for c in conditions if c["type"] == kind), None)

    def annotations(self) -> dict[str, str]:
        """Our own node's, of flannel's."""
        return {key: value for key, value in self._all().items() if "flannel" in key}

    def report(self) -> dict[str, Any]:
        """What the agent says of itself; empty: nothing yet."""
        found: dict[str, Any] = json.loads(self._all().get(REPORT, "{}"))
        return found

    def wants(self, wish: str) -> None:
        """Somebody annotates our node."""
        node = copy.deepcopy(self.api.nodes[OWN])
        node["metadata"]["annotations"][BYPASS] = wish
        self.api.put(node)

    def _all(self) -> dict[str, str]:
        found: dict[str, str] = self.api.nodes[OWN]["metadata"]["annotations"]
        return found


@pytest.fixture
def cluster(node: AgentNode, tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes, of which ours has not announced itself yet."""
    cluster = Cluster(node, tmp_path)
    own = make_node(1)
    own["metadata"]["annotations"] = {}
    cluster.api.put(own, make_node(2), make_node(3))
    yield cluster
    node.stop_if_running()
    cluster.api.down()


def test_a_new_node_announces_itself_and_gets_its_network(cluster: Cluster) -> None:
    """From a Node with no annotation to flannel's annotations, flannel.1, peers, and readiness."""
    cluster.start()
    mac = derived_mac(OWN)
    assert cluster.annotations() == {
        f"{PREFIX}/backend-data": json.dumps({"VNI": 1, "VtepMAC": mac}, separators=(",", ":")),
        f"{PREFIX}/backend-type": "vxlan",
        f"{PREFIX}/kube-subnet-manager": "true",
        f"{PREFIX}/public-ip": "172.16.0.1",
    }
    assert cluster.node.link("flannel.1")["address"] == mac
    assert "10.64.2.0/24 via 10.64.2.0 dev flannel.1 onlink" in cluster.node.sh("ip route")
    assert "FLANNEL-POSTRTG -s 10.64.1.0/24" in cluster.node.sh("iptables-save")
    assert "FLANNEL_SUBNET=10.64.1.1/24" in cluster.node.subnet_file.read_text()
    eventually(lambda: cluster.condition("NetworkUnavailable") == "False", "the condition")


def test_flannelds_mac_is_kept(cluster: Cluster) -> None:
    """A device that flanneld left behind keeps its MAC, and the annotation says that one."""
    cluster.node.sh(
        "ip link add flannel.1 address 02:00:00:00:00:42 type vxlan id 1 dev eth0"
        " local 172.16.0.1 dstport 8472 nolearning"
    )
    index = cluster.node.link("flannel.1")["ifindex"]
    cluster.start()
    link = cluster.node.link("flannel.1")
    assert (link["address"], link["ifindex"]) == ("02:00:00:00:00:42", index)
    assert "02:00:00:00:00:42" in cluster.annotations()[f"{PREFIX}/backend-data"]


def test_an_announced_mac_is_kept(cluster: Cluster) -> None:
    """A node that is announced already keeps its MAC, and peers need not learn another."""
    cluster.api.put(make_node(1))
    cluster.start()
    assert cluster.node.link("flannel.1")["address"] == "0e:00:00:00:00:01"
    data = json.loads(cluster.annotations()[f"{PREFIX}/backend-data"])
    assert data == {"VNI": 1, "VtepMAC": "0e:00:00:00:00:01"}


def test_nodes_come_and_go(cluster: Cluster) -> None:
    """A node that joins, changes its MAC, or leaves is followed, and is cached at once."""
    cluster.start()
    cluster.api.put(make_node(4))
    eventually(lambda: "10.64.4.0/24" in cluster.node.sh("ip route"), "the new node")
    cache = cluster.node.state / "nodes.json"
    eventually(lambda: "node-00004" in cache.read_text(), "its place in the cache")
    data = json.dumps({"VNI": 1, "VtepMAC": "02:00:00:00:00:04"})
    cluster.api.put(make_node(4, backend_data=data))
    shown = "02:00:00:00:00:04 dst 172.16.0.4"
    eventually(lambda: shown in cluster.node.sh("bridge fdb show dev flannel.1"), "its MAC")
    assert "0e:00:00:00:00:04" not in cluster.node.sh("bridge fdb; ip neigh")
    cluster.api.delete("node-00004")
    eventually(lambda: "10.64.4.0" not in cluster.node.sh("ip route; ip neigh"), "its end")


def test_an_api_server_that_is_down_takes_nothing_down(cluster: Cluster) -> None:
    """While the API server is away the network serves, is repaired, and survives a restart."""
    cluster.start()
    before = cluster.node.kernel_path()
    cluster.api.down()
    eventually(lambda: cluster.node.status()["source_error"] is not None, "the error")
    cluster.node.sh("ip route del 10.64.2.0/24")
    eventually(lambda: cluster.node.kernel_path() == before, "the repair")
    cluster.node.stop(signal.SIGKILL)
    cluster.start()
    assert cluster.node.kernel_path() == before
    assert cluster.node.status()["bypass"] == "on"
    cluster.api.put(make_node(4))
    with entered(cluster.node.netns):
        cluster.api.up()
    eventually(lambda: "10.64.4.0/24" in cluster.node.sh("ip route"), "its return", seconds=10)


def test_a_forged_or_stale_object_cuts_nobody_off(cluster: Cluster) -> None:
    """Older objects with a served peer's address or MAC leave it its entries, at a restart too."""
    node = cluster.node
    cluster.start()
    before = node.kernel_path()
    stale, forged = make_node(8, public_ip="172.16.0.2"), make_node(9)
    data = cluster.api.nodes["node-00003"]["metadata"]["annotations"][f"{PREFIX}/backend-data"]
    forged["metadata"]["annotations"][f"{PREFIX}/backend-data"] = data
    for thing in (stale, forged):
        thing["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    cluster.api.put(stale, forged)
    wanted = "10.64.8.0/24 via 10.64.8.0 dev flannel.1 onlink"
    for _ in range(2):
        eventually(lambda: wanted in node.sh("ip route"), "the stale object's own route")
        after = node.kernel_path()
        for kind in ("routes", "neighbours", "fdb"):
            assert set(after[kind]) >= set(before[kind])
        assert "10.64.9.0" not in node.sh("ip route; ip neigh")
        assert {line.split()[1] for line in node.status()["problems"]} == {
            "node-00008:",
            "node-00009:",
        }
        node.stop()
        cluster.start()


def test_another_address_is_never_announced(cluster: Cluster) -> None:
    """While our address is away, and eth0 is renamed, it stays announced and peers programmed."""
    node, announced = cluster.node, f"{PREFIX}/public-ip"
    cluster.api.put(make_node(1, public_ip="172.16.0.1"))
    cluster.start()
    node.sh("ip addr del 172.16.0.1/16 dev eth0; ip addr add 172.16.9.9/16 dev eth0")
    away = "no interface has the address 172.16.0.1 now"
    eventually(lambda: away in str(node.status()["problems"]), "the report")
    node.sh("ip addr add 172.16.0.1/16 dev eth0; ip link set eth0 name lan0 down")
    node.sh("ip link set lan0 up; ip route replace default via 172.16.0.254")
    eventually(lambda: away not in str(node.status()["problems"]), "its return")
    cluster.api.put(make_node(4))
    eventually(lambda: "10.64.4.0/24" in node.sh("ip route"), "a new peer", seconds=30)
    assert cluster.annotations()[announced] == "172.16.0.1"
    assert not [patch for patch in cluster.api.patches if "172.16.9.9" in str(patch)]
    assert node.status()["failures"] == []
    assert node.link("flannel.1")["linkinfo"]["info_data"]["local"] == "172.16.0.1"


def test_remembered_nodes_are_not_written_over_the_truth(cluster: Cluster) -> None:
    """A starting agent asks its source first: no change is set back, no deleted node returns."""
    node = cluster.node
    cluster.start()
    node.stop()
    assert "0e:00:00:00:00:02" in (node.state / "nodes.json").read_text()
    data = json.dumps({"VNI": 1, "VtepMAC": "02:00:00:00:00:02"})
    cluster.api.put(make_node(2, backend_data=data))
    node.sh(
        "ip neigh replace 10.64.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent",
        "bridge fdb del 0e:00:00:00:00:02 dev flannel.1 dst 172.16.0.2 self",
        "bridge fdb add 02:00:00:00:00:02 dev flannel.1 dst 172.16.0.2 self permanent",
        "ip route del 10.64.3.0/24; ip neigh del 10.64.3.0 dev flannel.1",
        "bridge fdb del 0e:00:00:00:00:03 dev flannel.1 dst 172.16.0.3 self",
    )
    cluster.api.delete("node-00003")
    before = node.kernel_path()
    with node.watch("neigh", "route") as seen:
        cluster.start()
    assert node.kernel_path() == before
    old = ("0e:00:00:00:00:02", "0e:00:00:00:00:03", "10.64.3.0")
    assert not [line for line in seen if any(word in line for word in old)]


def test_nodes_of_another_prefix_are_not_remembered(cluster: Cluster) -> None:
    """With another annotation prefix the nodes in nodes.json are another cluster's."""
    cluster.start()
    cluster.node.stop()
    cluster.api.down()
    cluster.start(wait=False, prefix="other.example.com")
    node = cluster.node
    eventually(lambda: "nodes can't be followed" in node.log(), "the error", seconds=30)
    assert "is not used: it is of kubernetes" in node.log()
    status = node.state / "agent.json"
    eventually(lambda: json.loads(status.read_text())["source_error"], "its report", seconds=30)
    assert json.loads(status.read_text())["peers"] == 0


def test_an_emptied_cluster_is_not_believed(cluster: Cluster) -> None:
    """A list that has lost all nodes, ours too, is reported, and what served goes on."""
    cluster.start()
    before = cluster.node.kernel_path()
    for name in list(cluster.api.nodes):
        cluster.api.delete(name)
    eventually(lambda: "empty" in str(cluster.node.status()["problems"]), "the report")
    assert cluster.node.kernel_path() == before
    cluster.api.put(make_node(2), make_node(4))
    eventually(lambda: "10.64.4.0/24" in cluster.node.sh("ip route"), "another node")
    after = cluster.node.kernel_path()
    assert set(after["routes"]) > set(before["routes"])


def test_adopt_announces_nothing(cluster: Cluster) -> None:
    """In mode adopt flanneld announces this node; the agent writes its report and nothing else."""
    cluster.node.sh(
        "ip link add flannel.1 type vxlan id 1 dev eth0 local 172.16.0.1 dstport 8472 nolearning",
        "ip link set flannel.1 up",
        "ip neigh add 10.64.2.0 lladdr 0e:00:00:00:00:02 dev flannel.1 nud permanent",
        "bridge fdb add 0e:00:00:00:00:02 dev flannel.1 dst 172.16.0.2 self permanent",
        "ip route add 10.64.2.0/24 via 10.64.2.0 dev flannel.1 onlink",
    )
    cluster.start(mode="adopt")
    eventually(lambda: cluster.report() != {}, "the report")
    [(path, _, body)] = cluster.api.patches
    assert path == f"/api/v1/nodes/{OWN}/status"
    assert list(json.loads(body)["metadata"]["annotations"]) == [REPORT]
    assert cluster.annotations() == {}
    assert cluster.node.peers() == {"10.64.2.0/24"}


def test_a_node_of_etcd_gets_a_subnet_and_its_network(node: AgentNode, tmp_path: Path) -> None:
    """With a real etcd the agent takes a subnet and keeps it, and serves without etcd."""
    with entered(node.netns):
        etcd = EtcdServer(tmp_path).up()
    with entered(node.netns):
        config = {"Network": "10.64.0.0/10", "Backend": {"Type": "vxlan"}}
        etcd.ctl("put", "/coreos.com/network/config", json.dumps(config))
        other = {
            "PublicIP": "192.168.77.2",
            "PublicIPv6": None,
            "BackendType": "vxlan",
            "BackendData": {"VNI": 1, "VtepMAC": "0e:00:00:00:00:02"},
        }
        etcd.ctl("put", "/coreos.com/network/subnets/10.64.2.0-24", json.dumps(other))
        options = (f"--etcd-endpoints={etcd.url}", "--iface=eth0")
        node.start(*options, nodes=False)
        keys = etcd.ctl("get", "--prefix", "/coreos.com/network/subnets/", "--keys-only").split()
        [own] = [key for key in keys if "10.64.2.0" not in key]
        subnet = own.rpartition("/")[2].replace("-", "/")
        assert f"inet {subnet.partition('/')[0]}/32" in node.sh("ip addr show flannel.1")
        assert "10.64.2.0/24 via 10.64.2.0 dev flannel.1 onlink" in node.sh("ip route")
        before = node.kernel_path()
        node.stop(signal.SIGKILL)
        node.start(*options, nodes=False)
        assert node.kernel_path() == before
        etcd.close()
        node.stop(signal.SIGKILL)
        node.sh("ip route del 10.64.2.0/24")
        node.start(*options, nodes=False)
        assert node.kernel_path() == before
        assert node.status()["source_error"]
        etcd.up()
        eventually(lambda: not node.status()["source_error"], "etcd's return", seconds=20)
        etcd.ctl("del", "/coreos.com/network/subnets/10.64.2.0-24")
        eventually(lambda: "10.64.2.0" not in node.sh("ip route; ip neigh"), "the peer's end")
        node.stop()
        etcd.close()


def test_a_node_that_is_switched_off_keeps_the_kernel_path(cluster: Cluster) -> None:
    """By its annotation, from the agent's start; on again while it runs. The report says so."""
    cluster.wants("off")
    cluster.start()
    assert cluster.node.status()["wanted"] == "off"
    eventually(lambda: cluster.report().get("bypass") == "off", "the report")
    with cluster.node.maps() as maps:
        assert maps.settings().lease_until == 0
    cluster.wants("on")
    eventually(lambda: cluster.node.status()["bypass"] == "on", "the bypass")
    assert (cluster.node.state / "wish").read_text() == "on\n"


def test_a_pod_stays_on_the_kernel_path_by_its_annotation(cluster: Cluster) -> None:
    """Others of its namespace are in the map once the API server has told their annotations."""
    pods = "/api/v1/namespaces/default/pods"
    cluster.api.objects = {
        f"{pods}/pod7": {"metadata": {"annotations": {BYPASS: "off"}}},
        f"{pods}/pod8": {"metadata": {}},
    }
    cluster.start()
    for number in (7, 8):
        assert cluster.node.ask(**make_pod(cluster.node, number))["accelerated"] is True
    with cluster.node.maps() as maps:
        eventually(lambda: list(map(str, maps.pods())) == ["10.42.1.8"], "the other pod")
    assert "veth7: its annotation vxlane.io/bypass says off" in cluster.node.log()
