# SPDX-License-Identifier: Apache-2.0
"""deploy/manifests, by kubectl's own kustomize."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from rendering import MANIFESTS, TOOLS, Json, container, pod, render

K3S = {
    "cniBinDir": "/var/lib/rancher/k3s/data/cni",
    "cniConfDir": "/var/lib/rancher/k3s/agent/etc/cni/net.d",
}


def kustomize(directory: Path) -> list[Json]:
    """What `kubectl apply -k` would send."""
    command = [TOOLS / "kubectl", "kustomize", directory]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def by_kind(objects: list[Json]) -> dict[str, Json]:
    """The objects, whatever their order."""
    return {item["kind"]: item for item in objects}


@pytest.mark.parametrize("mode", ["adopt", "own", "remove"])
def test_kubectl_makes_of_them_what_helm_makes(mode: str) -> None:
    """The same objects."""
    assert by_kind(kustomize(MANIFESTS / mode)) == by_kind(render(mode=mode))


@pytest.mark.parametrize("mode", ["adopt", "remove"])
def test_k3s_has_its_cni_files_elsewhere(mode: str) -> None:
    """As the chart with k3s's directories."""
    assert by_kind(kustomize(MANIFESTS / f"{mode}-k3s")) == by_kind(render(mode=mode, **K3S))


def test_a_kustomization_of_ones_own_stands_on_them(tmp_path: Path) -> None:
    """Another image and another namespace, without a copy of the manifests."""
    base = tmp_path / "base"
    base.symlink_to(MANIFESTS / "adopt")
    mine = {
        "resources": ["base"],
        "namespace": "fast",
        "images": [{"name": "ghcr.io/vxlane/vxlane", "newName": "mirror/vxlane", "newTag": "7"}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(mine))
    made = by_kind(kustomize(tmp_path))
    assert made["DaemonSet"]["metadata"]["namespace"] == "fast"
    assert made["ClusterRoleBinding"]["subjects"][0]["namespace"] == "fast"
    assert container(pod(list(made.values())), "agent")["image"] == "mirror/vxlane:7"
