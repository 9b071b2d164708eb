# SPDX-License-Identifier: Apache-2.0
"""`vxlane up`, `down` and `cluster`, beside a stand-in of the API server with its agents."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from clusterserver import DAEMON_SET, SteeredCluster, said

from vxlane.cli.main import cli
from vxlane.cluster import rollout
from vxlane.errors import VxlaneError
from vxlane.sources.steering import BYPASS, REPORT

Make = Callable[..., SteeredCluster]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes clusters that are up."""
    made = []

    def up(count: int, **more: Any) -> SteeredCluster:
        made.append(SteeredCluster(count, **more))
        made[-1].up()
        return made[-1]

    yield up
    for server in made:
        server.down()


@pytest.fixture
def running(make: Make) -> SteeredCluster:
    """Three nodes with agents, node-00003 off."""
    server = make(3)
    manifest = ROOT / "deploy/manifests/adopt/vxlane.yaml"
    objects = yaml.safe_load_all(manifest.read_text())
    (daemons,) = (item for item in objects if item["kind"] == "DaemonSet")
    server.store(DAEMON_SET, daemons)
    server.change(3, report=said("off"), **{BYPASS: "off"})
    server.steps.clear()
    server.patches.clear()
    return server


@pytest.fixture
def vxlane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command on a cluster; agents that don't answer are not waited for."""
    monkeypatch.setattr(rollout.Patience.__init__, "__defaults__", (0.0, 0.01, 0.1))

    def run(server: SteeredCluster, *arguments: str) -> Result:
        path = server.kubeconfig(tmp_path)
        return CliRunner().invoke(cli, [*arguments, "--kubeconfig", str(path)])

    return run


def objects(server: SteeredCluster) -> set[str]:
    """What was applied, by the last word of its path's kind."""
    return {path.split("/")[-2] for path in server.objects}


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("command", [["cluster", "enable", "node-00003"], ["up"]])
def test_a_signal_sets_the_watched_node_back(
    make: Make, running: SteeredCluster, tmp_path: Path, command: list[str], sent: signal.Signals
) -> None:
    """A node that nobody watches any more is what it was before."""
    server = make(3) if command == ["up"] else running
    where = ["--kubeconfig", str(server.kubeconfig(tmp_path))]
    run = [sys.executable, "-c", "from vxlane.cli.main import main; main()"]
    arguments = [*run, *command, "--yes", "--soak=60", *where]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as switching:
        assert switching.stdout
        for line in switching.stdout:
            if line.startswith("node-") and line.endswith(f": {BYPASS}=on\n"):
                break
        switching.send_signal(sent)
        rest = switching.stdout.read()
    assert "is set back" in rest
    assert switching.returncode
    (switched, on), (set_back, off) = server.steps[-2:]
    assert (switched, on, off) == (set_back, "on", "off")


def test_status_shows_all_nodes(running: SteeredCluster, vxlane: Callable[..., Result]) -> None:
    """A line each, and nothing is written."""
    done = vxlane(running, "cluster", "status")
    assert (done.exit_code, running.patches) == (0, [])
    header, *lines = done.stdout.splitlines()
    assert header.split() == [
        "NODE",
        "VERSION",
        "MODE",
        "WANTED",
        "BYPASS",
        "SHARE",
        "PODS",
        "TROUBLE",
    ]
    assert [line.split()[:6] for line in lines] == [
        ["node-00001", "0.1.0", "adopt", "on", "on", "90%"],
        ["node-00002", "0.1.0", "adopt", "on", "on", "90%"],
        ["node-00003", "0.1.0", "adopt", "off", "off", "0%"],
    ]
    running.change(2, report=said("on", trouble="no room for peers"))
    done = vxlane(running, "cluster", "status")
    assert done.exit_code == 1
    assert "no room for peers" in done.stdout
    listed = json.loads(vxlane(running, "cluster", "status", "--json").stdout)["nodes"]
    assert [item["troubles"] for item in listed] == [[], ["no room for peers"], []]


@pytest.mark.parametrize("value", ["x", float("nan"), [0.5], True, 10**400])
def test_one_nodes_wrong_report_hides_no_other_node(
    running: SteeredCluster, vxlane: Callable[..., Result], value: Any
) -> None:
    """A node's own credentials can write its annotation; such a node has no agent's report."""
    running.deaf = {"node-00002"}
    running.change(2, report=said("on", share=value))
    done = vxlane(running, "cluster", "status")
    assert done.exit_code == 1
    rows = done.stdout.splitlines()[1:]
    assert [row.split()[5] for row in rows if row.startswith("node")] == ["90%", "-", "0%"]
    assert "no agent has reported" in done.stdout


@pytest.mark.parametrize(
    ("words", "plan"),
    [
        (("disable", "node-00001"), "node-00001: annotation vxlane.io/bypass=off"),
        (("enable", "--all"), "node-00003: annotation vxlane.io/bypass=on (now: off)"),
        (("enable", "node-00003", "--pods=10%"), "node-00003: annotation vxlane.io/bypass=10%"),
        (("rollback",), "node-00002: annotation vxlane.io/bypass=off"),
    ],
)
def test_without_yes_the_plan_is_all(
    running: SteeredCluster, vxlane: Callable[..., Result], words: tuple[str, ...], plan: str
) -> None:
    """Nothing is written."""
    done = vxlane(running, "cluster", *words)
    assert (done.exit_code, running.patches) == (0, [])
    assert plan in done.stdout
    assert done.stdout.endswith("nothing was changed; --yes does it\n")


def test_a_node_is_switched_off_and_on(
    running: SteeredCluster, vxlane: Callable[..., Result]
) -> None:
    """By one merge patch of its annotation each."""
    assert vxlane(running, "cluster", "disable", "node-00001", "--yes").exit_code == 0
    [(path, kind, body)] = running.patches
    assert (path, kind) == ("/api/v1/nodes/node-00001", "application/merge-patch+json")
    assert json.loads(body) == {"metadata": {"annotations": {BYPASS: "off"}}}
    done = vxlane(running, "cluster", "enable", "node-00001", "--pods", "25%", "--yes", "--soak=0")
    assert "node-00001: before: 0% of 1000 packets bypassed, 2 of 2 pods ready; now: 90%" in (
        done.stdout
    )
    assert running.steps == [("node-00001", "off"), ("node-00001", "25%")]
    assert "nothing to do" in vxlane(running, "cluster", "disable", "node-00003", "--yes").stdout


def test_a_node_that_is_watched_is_read_alone(
    running: SteeredCluster, vxlane: Callable[..., Result]
) -> None:
    """All nodes are listed for the plan, and until the agent follows; not at every look."""
    running.requests.clear()
    vxlane(running, "cluster", "enable", "node-00003", "--yes", "--soak=0")
    assert len([path for path in running.requests if path.startswith("/api/v1/nodes?")]) == 2
    assert running.requests.count("/api/v1/nodes/node-00003") == 2


def test_all_are_switched_one_by_one_until_one_is_worse(
    running: SteeredCluster, vxlane: Callable[..., Result]
) -> None:
    """That one is set back to what it was; those before it stay, and those after are not tried."""
    vxlane(running, "cluster", "rollback", "--yes")
    assert [running.annotation(number) for number in (1, 2, 3)] == ["off"] * 3
    running.harmed = {"node-00002"}
    running.steps.clear()
    done = vxlane(running, "cluster", "enable", "--all", "--yes", "--soak=0")
    assert running.steps == [
        ("node-00001", "on"),
        ("node-00002", "on"),
        ("node-00002", "off"),
    ]
    assert isinstance(done.exception, VxlaneError)
    assert str(done.exception) == (
        "node node-00002 is set back to off, since 1 of 2 pods are not ready, 0 before; "
        "'vxlane cluster rollback' switches all nodes off"
    )


def test_an_agent_that_does_not_follow_is_named(
    running: SteeredCluster, vxlane: Callable[..., Result]
) -> None:
    """A single node is set back; of a rollback all others are off by then."""
    running.deaf = {"node-00003"}
    done = vxlane(running, "cluster", "enable", "node-00003", "--yes", "--soak=0")
    assert "node node-00003 is set back to off, since it is to be on and is off" in str(
        done.exception
    )
    running.deaf = {"node-00002"}
    done = vxlane(running, "cluster", "rollback", "--yes")
    assert "these nodes' agents don't follow: node-00002;" in str(done.exception)
    assert [running.annotation(number) for number in (1, 2, 3)] == ["off"] * 3


@pytest.mark.parametrize("words", [(), ("node-00001", "--all")])
def test_enable_asks_which_nodes(
    running: SteeredCluster, vxlane: Callable[..., Result], words: tuple[str, ...]
) -> None:
    """All of a cluster are never meant by nothing."""
    done = vxlane(running, "cluster", "enable", *words, "--yes")
    assert done.exit_code == 2
    assert running.patches == []
    assert vxlane(running, "cluster", "enable", "node-00003", "--pods=0%").exit_code == 2


def test_up_only_reads_until_it_is_told_to(make: Make, vxlane: Callable[..., Result]) -> None:
    """The plan names what is applied, the nodes in their order, and those that are left out."""
    server = make(3)
    server.change(2, **{"flannel.alpha.coreos.com/backend-type": "wireguard"})
    done = vxlane(server, "up")
    assert (done.exit_code, server.patches, server.objects) == (0, [], {})
    plan = " ".join(done.stdout.split())
    for words in (
        "keep the bypass off on node-00001, node-00003 (vxlane.io/bypass=off)",
        "ServiceAccount kube-system/vxlane, ClusterRole vxlane, ClusterRoleBinding vxlane, Da",
        "node by node, and watch each for 60 s: node-00001, node-00003",
        "left out: node-00002: its flannel has backend wireguard",
    ):
        assert words in plan
    for number in (1, 3):
        server.change(number, **{"flannel.alpha.coreos.com/backend-type": "udp"})
    assert "no node can be accelerated: node-00001:" in str(vxlane(server, "up").exception)


def test_up_and_down_leave_a_cluster_as_it_was(make: Make, vxlane: Callable[..., Result]) -> None:
    """Off first, then agents, then node by node; down is off, removal, and no trace on nodes."""
    server = make(2)
    before = json.loads(json.dumps([node["metadata"] for node in server.nodes.values()]))
    done = vxlane(server, "up", "--yes", "--soak=0", "--image=mirror/vxlane:7")
    assert done.exit_code == 0, done.output
    assert objects(server) == {
        "serviceaccounts",
        "clusterroles",
        "clusterrolebindings",
        "daemonsets",
    }
    names = ["node-00001", "node-00002"]
    assert server.steps == [(name, word) for word in ("off", "on") for name in names]
    spec = server.objects[DAEMON_SET]["spec"]["template"]["spec"]
    assert {c["image"] for c in (*spec["initContainers"], *spec["containers"])} == {
        "mirror/vxlane:7"
    }
    applied = [path for path, kind, _ in server.patches if kind == "application/apply-patch+yaml"]
    assert [path.partition("?")[2] for path in applied] == ["fieldManager=vxlane&force=true"] * 4
    assert "nothing to do" not in vxlane(server, "down").stdout
    server.steps.clear()
    done = vxlane(server, "down", "--yes")
    assert done.exit_code == 0, done.output
    assert server.objects == {}
    assert server.steps[:2] == [(name, "off") for name in names]
    after = json.loads(json.dumps([node["metadata"] for node in server.nodes.values()]))
    for metadata in (*before, *after):
        del metadata["resourceVersion"]
    assert after == before
    assert "there is nothing to remove" in str(vxlane(server, "down", "--yes").exception)


def test_down_removes_by_pods_of_the_image_that_runs(
    running: SteeredCluster, vxlane: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is cleaned before anything is deleted: by mode remove, of the same image."""
    spec = running.objects[DAEMON_SET]["spec"]["template"]["spec"]
    spec["containers"][0]["image"] = "mirror/vxlane:7"
    applied: list[dict[str, Any]] = []
    store = running.store

    def noted(path: str, thing: dict[str, Any]) -> dict[str, Any]:
        applied.append(thing)
        return store(path, thing)

    monkeypatch.setattr(running, "store", noted)
    assert vxlane(running, "down", "--yes").exit_code == 0
    (daemons,) = (item for item in applied if item["kind"] == "DaemonSet")
    template = daemons["spec"]["template"]
    assert template["metadata"]["annotations"]["vxlane.io/mode"] == "remove"
    made = [*template["spec"]["initContainers"], *template["spec"]["containers"]]
    assert {item["image"] for item in made} == {"mirror/vxlane:7"}
    assert running.annotation(1, REPORT) is None


def test_up_knows_k3s(make: Make, vxlane: Callable[..., Result]) -> None:
    """By kubelet's version; its CNI files are elsewhere."""
    server = make(1, kubelet="v1.33.4+k3s1")
    assert vxlane(server, "up", "--yes", "--soak=0").exit_code == 0
    volumes = server.objects[DAEMON_SET]["spec"]["template"]["spec"]["volumes"]
    paths = {volume.get("hostPath", {}).get("path") for volume in volumes}
    assert "/var/lib/rancher/k3s/agent/etc/cni/net.d" in paths


@pytest.mark.parametrize("command", ["up", "down"])
def test_what_may_not_be_read_is_not_taken_for_absent(
    running: SteeredCluster, vxlane: Callable[..., Result], command: str
) -> None:
    """Somebody else's installation may be behind the refusal."""
    running.objects[DAEMON_SET] = 403
    done = vxlane(running, command, "--yes")
    assert "403" in str(done.exception)
    assert running.patches == []


def test_what_an_agent_of_before_has_said_is_no_agent(
    make: Make, vxlane: Callable[..., Result]
) -> None:
    """Its last report stays on the node where helm removed it: such a node is switched on as one
    that never had an agent.
    """
    server = make(2)
    for number in (1, 2):
        server.change(number, report={**said("on"), "at": "2026-01-01T00:00:00Z"})
    done = vxlane(server, "up", "--yes", "--soak=0")
    assert done.exit_code == 0, done.output
    names = ["node-00001", "node-00002"]
    assert server.steps == [(name, word) for word in ("off", "on") for name in names]


@pytest.mark.parametrize("command", ["up", "down"])
def test_what_others_installed_is_left_to_them(
    running: SteeredCluster, vxlane: Callable[..., Result], command: str
) -> None:
    """Helm's release is helm's, and what kubectl applied is kubectl's; in mode own the nodes would
    lose whoever keeps their network.
    """
    daemons = running.objects[DAEMON_SET]
    daemons["metadata"]["annotations"] = {"meta.helm.sh/release-name": "fast"}
    done = vxlane(running, command, "--yes")
    assert "helm installed this as release fast" in str(done.exception)
    daemons["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    done = vxlane(running, command, "--yes")
    assert "kubectl applied this" in str(done.exception)
    del daemons["metadata"]["annotations"]
    daemons["spec"]["template"]["metadata"]["annotations"]["vxlane.io/mode"] = "own"
    done = vxlane(running, command, "--yes")
    assert "vxlane runs in mode own" in str(done.exception)
    assert running.patches == []
