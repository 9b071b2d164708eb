# SPDX-License-Identifier: Apache-2.0
"""What deploy/chart makes of values and names, usual, odd and wrong ones."""

from __future__ import annotations

import copy
import functools
import json
import operator
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from rendering import (
    CHART,
    EVERYTHING,
    MODES,
    OF_THE_OPERATOR,
    container,
    helm,
    one,
    pod,
    render,
    values,
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("release", ["1", "true"])
def test_names_that_look_like_numbers_are_names(mode: str, release: str) -> None:
    """Of a release, a namespace and the objects: YAML would have them a number or a truth."""
    options = [
        "--namespace=7",
        "--set-string=fullnameOverride=12",
        *values(mode=mode, **EVERYTHING),
    ]
    done = helm("template", release, CHART, *options)
    for item in yaml.safe_load_all(done.stdout):
        assert item["metadata"]["name"] in {"12", "12-dashboard"}
        if item["kind"] not in OF_THE_OPERATOR:
            kubernetes_validate.validate(item, "1.37", strict=True)


@pytest.mark.parametrize(
    "absent",
    ["global", "healthz__startupProbe", "healthz__livenessProbe", "healthz__readinessProbe"],
)
def test_a_default_can_be_taken_away(absent: str) -> None:
    """By null, as helm has it: Kubernetes' own default counts."""
    kubernetes_validate.validate(one(render(**{absent: "null"}), "DaemonSet"), "1.37", strict=True)


def test_what_the_chart_says_itself_is_said_once() -> None:
    """A label, annotation or selector that a value repeats is the chart's: others look for it."""
    given = {
        "podLabels__app\\.kubernetes\\.io/name": "mine",
        "podAnnotations__vxlane\\.io/mode": "mine",
        "nodeSelector__kubernetes\\.io/os": "linux",
    }
    written = helm("template", CHART, *values(**given)).stdout
    assert "mine" not in written
    assert written.count("kubernetes.io/os") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "both"}, "mode"),
        ({"imge": "x"}, "imge"),
        ({"image__digest": "abc"}, "image/digest"),
        ({"nodeSelector__fast": "true"}, "nodeSelector/fast"),
        ({"podLabels__team": "7"}, "podLabels/team"),
        ({"podAnnotations__team": "7"}, "podAnnotations/team"),
        ({"serviceMonitor__labels__team": "7"}, "serviceMonitor/labels/team"),
        ({"metrics__port": "0", "serviceMonitor__enabled": "true"}, "give metrics.port"),
        ({"metrics__port": "9402"}, "healthz.port and metrics.port are the same"),
        ({"cniBinDir": "opt/cni/bin"}, "cniBinDir"),
        ({"bpffsDir": "/sys/fs/../bpf"}, "bpffsDir"),
        ({"podCidr": "10.256.0.0/16"}, "podCidr"),
        ({"podCidr": "10.42.0.0/33"}, "podCidr"),
        ({"fullnameOverride": "Vxlane"}, "fullnameOverride"),
    ],
)
def test_a_value_that_is_wrong_is_named(given: dict[str, str], said: str) -> None:
    """Nothing is rendered with it."""
    done = helm("template", CHART, *values(**given), check=False)
    assert done.returncode != 0
    assert said in done.stderr


def words(given: object, *above: str | int) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Each string in a tree, by its place."""
    if isinstance(given, str):
        yield above, given
    elif isinstance(given, dict | list):
        for key, value in given.items() if isinstance(given, dict) else enumerate(given):
            yield from words(value, *above, key)


USUAL = {
    **yaml.safe_load((CHART / "values.yaml").read_text()),
    "args": ["-v=1"],
    **{name: {"team": "red"} for name in ("podLabels", "podAnnotations", "nodeSelector")},
}


@pytest.mark.parametrize("place", [place for place, _ in words(USUAL)], ids=str)
def test_a_string_is_what_it_is_or_refused(place: tuple[str | int, ...], tmp_path: Path) -> None:
    """Whatever it means to YAML. No path, name or image has such characters."""
    file = tmp_path / "values.json"
    for strange in (": b", " #b", "\nb", '"', "{}"):
        given = copy.deepcopy(USUAL)
        *above, name = place
        parent = functools.reduce(operator.getitem, above, given)
        parent[name] += strange
        file.write_text(json.dumps(given), encoding="utf-8")
        options = ["--values", file, *values(**EVERYTHING)]
        done = helm("template", "vxlane", CHART, *options, check=False)
        is_refused = f"'/{'/'.join(map(str, place))}'" in done.stderr and not done.stdout
        rendered = {word for _, word in words(list(yaml.safe_load_all(done.stdout)))}
        assert is_refused or parent[name] in rendered, parent[name]


def test_own_makes_the_network_of_the_values() -> None:
    """net-conf.json in flannel's form."""
    given = {"podCidr": "10.42.0.0/16", "vni": "7", "mtu": "9000", "directRouting": "true"}
    objects = render(mode="own", **given)
    conf = json.loads(one(objects, "ConfigMap")["data"]["net-conf.json"])
    assert conf == {
        "Network": "10.42.0.0/16",
        "EnableNFTables": False,
        "Backend": {"Type": "vxlan", "VNI": 7, "Port": 0, "MTU": 9000, "DirectRouting": True},
    }
    assert "--role=main" in container(pod(objects), "install-cni")["args"]


def test_values_that_people_expect_do_what_they_say() -> None:
    """Names as flannel's chart and others have them."""
    digest = "sha256:" + "0" * 64
    objects = render(
        release="fast",
        image__digest=digest,
        nameOverride="lane",
        nodeSelector__fast="yes",
        updateStrategy__type="OnDelete",
        updateStrategy__rollingUpdate="null",
        readOnlyRootFilesystem="false",
        cniBinDir="/bin/cni",
        cniConfDir="/conf",
        args="{-v=1}",
    )
    daemons, spec = one(objects, "DaemonSet"), pod(objects)
    assert daemons["metadata"]["name"] == "fast-lane"
    assert daemons["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "fast": "yes"}
    agent = container(spec, "agent")
    assert agent["image"] == f"ghcr.io/vxlane/vxlane@{digest}"
    assert agent["args"][-1] == "-v=1"
    assert agent["securityContext"]["readOnlyRootFilesystem"] is False
    paths = {volume.get("hostPath", {}).get("path") for volume in spec["volumes"]}
    assert {"/bin/cni", "/conf"} <= paths
    labels = daemons["spec"]["template"]["metadata"]["labels"]
    assert daemons["spec"]["selector"]["matchLabels"].items() <= labels.items()
    subject = one(objects, "ClusterRoleBinding")["subjects"][0]
    account = {"kind": "ServiceAccount", "name": "fast-lane", "namespace": "kube-system"}
    assert subject == account
    assert spec["serviceAccountName"] == one(objects, "ServiceAccount")["metadata"]["name"]


def test_a_service_has_a_name_that_dns_takes() -> None:
    """Helm allows a release a dot, the API server a Service none."""
    objects = render(release="fast.lane", **EVERYTHING)
    assert one(objects, "Service")["metadata"]["name"] == "fast-lane-vxlane"
    assert one(objects, "DaemonSet")["metadata"]["name"] == "fast.lane-vxlane"
