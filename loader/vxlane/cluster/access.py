# SPDX-License-Identifier: Apache-2.0
"""How a person at a shell reaches the cluster: by a kubeconfig, found as kubectl and k3s do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vxlane.errors import ConfigError
from vxlane.sources.kubernetes.access import SERVICE_ACCOUNT, Access, in_cluster, read_kubeconfig

OF_DISTRIBUTIONS = (Path("/etc/rancher/k3s/k3s.yaml"), Path("/etc/rancher/rke2/rke2.yaml"))
"""Where k3s and RKE2 put theirs on a server; root may read them."""


def find(given: Path | None, environ: Mapping[str, str]) -> Access:
    """By `given`, $KUBECONFIG, ~/.kube/config, k3s's or RKE2's file, or this pod's own account."""
    if given:
        return read_kubeconfig(given)
    # An empty name is none: it is what "$KUBECONFIG:FILE" begins with where that was not set. Of
    # several files kubectl leaves out those that are not there.
    if named := [Path(name) for name in environ.get("KUBECONFIG", "").split(os.pathsep) if name]:
        return read_kubeconfig(*([path for path in named if path.exists()] or named))
    home = Path(environ["HOME"]) / ".kube/config" if environ.get("HOME") else None
    for path in filter(None, (home, *OF_DISTRIBUTIONS)):
        if os.access(path, os.R_OK):
            return read_kubeconfig(path)
    if (SERVICE_ACCOUNT / "token").exists():
        return in_cluster(environ)
    raise ConfigError(
        "there is no kubeconfig here that you may read; give --kubeconfig, or set KUBECONFIG"
    )
