# SPDX-License-Identifier: Apache-2.0
"""The chart as helm itself renders it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
MANIFESTS = ROOT / "deploy" / "manifests"
TOOLS = Path(sys.executable).parent
"""Where scripts/setup puts helm and kubectl."""
MODES = ("adopt", "own", "remove")
EVERYTHING = {
    "serviceMonitor__enabled": "true",
    "prometheusRule__enabled": "true",
    "grafanaDashboard__enabled": "true",
    "rbac__namespaces": "true",
}
"""The values that make all objects."""
OF_THE_OPERATOR = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of Prometheus' operator, which Kubernetes has no schema of."""

Json = dict[str, Any]


def helm(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    command = [TOOLS / "helm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check)


def values(**given: str) -> list[str]:
    """Options that set values; a dot in a name is written as two underscores."""
    return [f"--set={name.replace('__', '.')}={value}" for name, value in given.items()]


def render(*, release: str = "vxlane", **given: str) -> list[Json]:
    """All objects of the chart with these values."""
    done = helm("template", release, CHART, "--namespace=kube-system", *values(**given))
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(objects: list[Json], kind: str) -> Json:
    """The one object of this kind."""
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def pod(objects: list[Json]) -> Json:
    """The DaemonSet's pod."""
    spec: Json = one(objects, "DaemonSet")["spec"]["template"]["spec"]
    return spec


def containers(spec: Json) -> list[Json]:
    """Those of a pod, those that come first too."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def container(spec: Json, name: str) -> Json:
    """One container of a pod."""
    (found,) = (item for item in containers(spec) if item["name"] == name)
    return found
