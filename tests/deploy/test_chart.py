# SPDX-License-Identifier: Apache-2.0
"""deploy/chart, rendered by helm and held against Kubernetes' own schemas."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import click
import kubernetes_validate
import pytest
import yaml
from rendering import (
    CHART,
    EVERYTHING,
    MANIFESTS,
    MODES,
    OF_THE_OPERATOR,
    ROOT,
    Json,
    container,
    containers,
    helm,
    one,
    pod,
    render,
)

from vxlane.cli.main import cli
from vxlane.config import PodSource
from vxlane.lab.waiting import wait_for

# chart/kube-flannel/templates/rbac.yaml of flannel-io/flannel: as it was until 2025 (f057792), and
# what a later one (107be66) allows besides.
FLANNELS_ROLE = {
    ("pods", "get"),
    ("nodes", "get"),
    ("nodes", "list"),
    ("nodes", "watch"),
    ("nodes/status", "patch"),
}
LATER = {(what, verb) for what in ("pods", "namespaces") for verb in ("get", "list", "watch")}


@functools.cache
def rendered(mode: str) -> list[Json]:
    """The chart with every switch on."""
    return render(mode=mode, **EVERYTHING)


def rights(objects: list[Json]) -> set[tuple[str, str]]:
    """What the agents' role allows, as (resource, verb); all of the core group."""
    rules = one(objects, "ClusterRole")["rules"]
    assert all(rule["apiGroups"] == [""] for rule in rules)
    return {(what, verb) for rule in rules for what in rule["resources"] for verb in rule["verbs"]}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_every_object_is_one_of_kubernetes(mode: str, version: str) -> None:
    """Its OpenAPI schema, of the oldest and the newest release, knows each field; strictly."""
    for item in rendered(mode):
        if item["kind"] not in OF_THE_OPERATOR:
            kubernetes_validate.validate(item, version, strict=True)


def test_helm_finds_nothing_to_say() -> None:
    """`helm lint --strict` passes."""
    done = helm("lint", "--strict", "--quiet", CHART, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_agents_may_do_what_flannels_daemon_may() -> None:
    """No more than flannel's role of any version; with namespaces no more than its later one."""
    assert rights(render()) == FLANNELS_ROLE
    assert rights(rendered("adopt")) - FLANNELS_ROLE == {("namespaces", "get")} <= LATER


@pytest.mark.parametrize("mode", MODES)
def test_no_container_is_privileged(mode: str) -> None:
    """The plugin's installer has no capability at all, the others have those of the list."""
    named = yaml.safe_load((CHART / "values.yaml").read_text())["capabilities"]
    assert "ALL" not in named
    for item in containers(pod(rendered(mode))):
        context = item["securityContext"]
        assert (context["privileged"], context["allowPrivilegeEscalation"]) == (False, False)
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"]["drop"] == ["ALL"]
        touches_the_network = item["name"] in {"agent", "detach"}
        assert context["capabilities"].get("add", []) == (named if touches_the_network else [])


def test_no_capability_lets_a_container_escalate() -> None:
    """The API server takes SYS_ADMIN beside allowPrivilegeEscalation=false, and not CAP_SYS_ADMIN;
    containerd would make CAP_CAP_SYS_ADMIN of that, which is no capability.
    """
    agent = container(pod(render(capabilities="{NET_ADMIN,SYS_ADMIN}")), "agent")
    assert agent["securityContext"]["allowPrivilegeEscalation"] is False
    assert agent["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "SYS_ADMIN"]
    done = helm("template", CHART, "--set=capabilities={CAP_SYS_ADMIN}", check=False)
    assert done.returncode != 0
    assert "capabilities has CAP_SYS_ADMIN; write it without CAP_" in done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_directories_of_another_user_can_be_written(mode: str) -> None:
    """As Kubespray's are: with a capability, which the plugin's installer has then too."""
    spec = pod(render(mode=mode, capabilities="{NET_ADMIN,DAC_OVERRIDE}"))
    added = {
        item["name"]: item["securityContext"]["capabilities"]["add"] for item in containers(spec)
    }
    assert all("DAC_OVERRIDE" in capabilities for capabilities in added.values())
    of_files = {"install-cni", "uninstall-cni"} & added.keys()
    assert [added[name] for name in of_files] == [["DAC_OVERRIDE"]]


def test_the_list_of_capabilities_is_the_proved_one() -> None:
    """deploy/capabilities.txt has one test for each."""
    named = yaml.safe_load((CHART / "values.yaml").read_text())["capabilities"]
    lines = (ROOT / "deploy" / "capabilities.txt").read_text().splitlines()
    assert sorted(named) == sorted(line for line in lines if line and line[0] != "#")


@pytest.mark.parametrize("mode", MODES)
def test_no_mount_asks_for_a_privileged_container(mode: str) -> None:
    """The API server refuses propagation Bidirectional to all others. The bpffs is the node's: its
    mounts are seen, and its pins outlive the pod.
    """
    spec = pod(rendered(mode))
    paths = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in spec["volumes"]}
    mounts = [mount for item in containers(spec) for mount in item.get("volumeMounts", [])]
    assert {mount.get("mountPropagation", "None") for mount in mounts} == {
        "None",
        "HostToContainer",
    }
    of_pins = [mount for mount in mounts if mount["mountPath"] == "/run/vxlane/bpf"]
    assert {paths[mount["name"]] for mount in of_pins} == {"/sys/fs/bpf/vxlane"}


@pytest.mark.parametrize("mode", MODES)
def test_every_mount_has_its_volume_and_every_volume_its_mount(mode: str) -> None:
    """A hostPath that nobody mounts would still be made on every node."""
    for skipped in ("true", "false"):
        spec = pod(render(mode=mode, skipCNIConfigInstallation=skipped))
        mounted = {m["name"] for item in containers(spec) for m in item.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("mode", ["adopt", "own"])
def test_the_agent_keeps_the_plugin_that_is_installed(mode: str) -> None:
    """It may write both of the plugin's directories, and is told of the one with the lists; where
    the plugin is installed otherwise it sees neither.
    """
    places = {"cniBinDir": "/bin/cni", "cniConfDir": "/conf"}
    for skipped, seen in (("false", set(places.values())), ("true", set())):
        spec = pod(render(mode=mode, skipCNIConfigInstallation=skipped, **places))
        paths = {v["name"]: v.get("hostPath", {}).get("path") for v in spec["volumes"]}
        agent = container(spec, "agent")
        writable = {
            mount["mountPath"]: paths.get(mount["name"])
            for mount in agent["volumeMounts"]
            if not mount.get("readOnly")
        }
        assert set(writable.values()) & set(places.values()) == seen
        given = [arg for arg in agent["args"] if arg.startswith("--cni-conf-dir=")]
        told = [writable.get(arg.partition("=")[2]) for arg in given]
        assert told == (["/conf"] if seen else [])


@pytest.mark.parametrize("mode", MODES)
def test_a_directory_of_plugins_is_not_made(mode: str) -> None:
    """A runtime looks elsewhere then, as k3s of before November 2024, and would find no plugin that
    the list names: no pod would start. What removes needs none.
    """
    spec = pod(render(mode=mode))
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "cni-plugin")
    wanted = "DirectoryOrCreate" if mode == "remove" else "Directory"
    assert volume["hostPath"]["type"] == wanted


@pytest.mark.parametrize("source", PodSource)
def test_the_agent_is_told_who_tells_of_pods(source: PodSource) -> None:
    """The chart takes each word that the program takes."""
    assert f"--pods={source.value}" in container(pod(render(pods=source.value)), "agent")["args"]


@pytest.mark.parametrize("mode", MODES)
def test_the_pod_is_placed_as_flannels_is(mode: str) -> None:
    """In the host's network, on every node whatever its taints, and the last to be evicted."""
    spec = pod(rendered(mode))
    assert (spec["hostNetwork"], spec["priorityClassName"]) == (True, "system-node-critical")
    assert spec["tolerations"] == [
        {"effect": "NoExecute", "operator": "Exists"},
        {"effect": "NoSchedule", "operator": "Exists"},
    ]
    assert not [port for item in containers(spec) for port in item.get("ports", [])]


@pytest.mark.parametrize("mode", MODES)
def test_each_command_takes_its_arguments(mode: str) -> None:
    """The program itself parses them."""
    for item in containers(pod(rendered(mode))):
        if item["name"] == "removed":
            continue
        _, name = item["command"]
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        command.make_context(name, list(item.get("args", [])))


def test_probes_ask_what_the_agent_answers_on_loopback() -> None:
    """Start and life by /healthz, which answers while a source of nodes is waited for; readiness
    by /readyz. Nobody but the node reaches the port.
    """
    agent = container(pod(render(healthz__port="9999")), "agent")
    for probe, path in (("startup", "healthz"), ("liveness", "healthz"), ("readiness", "readyz")):
        asked = agent[f"{probe}Probe"]["httpGet"]
        assert asked == {"host": "127.0.0.1", "path": f"/{path}", "port": 9999}
    assert {"--healthz-ip=127.0.0.1", "--healthz-port=9999"} <= set(agent["args"])


def test_adopt_touches_nothing_of_flannels() -> None:
    """Its files are mounted in mode own alone."""
    paths = {v.get("hostPath", {}).get("path") for v in pod(render())["volumes"]}
    assert not paths & {"/run/flannel", "/run/xtables.lock"}
    own = {v.get("hostPath", {}).get("path") for v in pod(rendered("own"))["volumes"]}
    assert {"/run/flannel", "/run/xtables.lock"} <= own


def test_the_next_agent_comes_while_the_old_one_serves() -> None:
    """One more pod on a node, which asks for no port, whose agent stands by; but not to remove."""
    strategy = one(render(), "DaemonSet")["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "--stand-by" in container(pod(render()), "agent")["args"]
    removal = one(rendered("remove"), "DaemonSet")["spec"]["updateStrategy"]
    assert removal["rollingUpdate"] == {"maxUnavailable": "25%"}


@pytest.mark.usefixtures("_machine")
def test_a_pod_that_removes_ends_when_it_is_told() -> None:
    """As process 1 of its container, which the kernel gives no signal that it does not handle."""
    command = container(pod(render(mode="remove")), "removed")["command"]
    parent = ["unshare", "--pid", "--fork", "--kill-child", *command]
    with subprocess.Popen(parent) as made:
        try:
            child = wait_for(lambda: handles_sigterm(made.pid), "the handler")
            os.kill(child, signal.SIGTERM)
            assert made.wait(timeout=5) == 0
        finally:
            made.kill()


def handles_sigterm(parent: int) -> int | None:
    """The child that does so; None: it does not yet."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        said = re.search(r"SigCgt:\t(\w+)", Path(f"/proc/{child}/status").read_text())
        if said and int(said[1], 16) >> (signal.SIGTERM - 1) & 1:
            return int(child)
    return None


def test_what_watches_is_what_deploy_grafana_has() -> None:
    """Rules and dashboard are the same files, and the job is named as the alerts name it."""
    objects = rendered("adopt")
    rules = one(objects, "PrometheusRule")["spec"]
    assert rules == yaml.safe_load((ROOT / "deploy/grafana/alerts.yaml").read_text())
    (board,) = (item for item in objects if item["metadata"]["name"] == "vxlane-dashboard")
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    shown = json.loads(board["data"]["vxlane.json"])
    assert shown == json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
    monitor, service = one(objects, "ServiceMonitor"), one(objects, "Service")
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "vxlane"
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    port = service["spec"]["ports"][0]
    assert monitor["spec"]["endpoints"][0]["port"] == port["name"]
    assert f"--metrics-port={port['port']}" in container(pod(objects), "agent")["args"]


def test_without_switches_nothing_of_an_operator_is_asked_for() -> None:
    """A cluster without the Prometheus operator refuses its kinds."""
    kinds = [item["kind"] for item in render()]
    assert sorted(kinds) == ["ClusterRole", "ClusterRoleBinding", "DaemonSet", "ServiceAccount"]


def test_agents_that_are_removed_are_not_missed() -> None:
    """Nobody scrapes their pods or alerts because they are not there."""
    kinds = {item["kind"] for item in rendered("remove")}
    assert not kinds & {"Service", *OF_THE_OPERATOR}


def test_the_version_is_the_programs() -> None:
    """Chart.yaml names the version of pyproject.toml."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = f'version = "{chart["appVersion"]}"'
    assert version in (ROOT / "pyproject.toml").read_text()


def test_plain_manifests_are_the_charts(tmp_path: Path) -> None:
    """Deploy/manifests is what scripts/manifests writes of the chart as it is."""
    subprocess.run([ROOT / "scripts/manifests", tmp_path], check=True)
    written = {p.relative_to(tmp_path): p.read_text() for p in tmp_path.rglob("*.yaml")}
    kept = {p.relative_to(MANIFESTS): p.read_text() for p in MANIFESTS.rglob("*.yaml")}
    assert written == kept
