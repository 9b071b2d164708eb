# SPDX-License-Identifier: Apache-2.0
"""The kubeconfig of `vxlane up`, `down` and `cluster`, found and read as kubectl does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vxlane.cluster import access
from vxlane.errors import ConfigError

SERVER = "https://10.0.0.1:6443"
COMPLETE = {
    "current-context": "x",
    "contexts": [{"name": "x", "context": {"cluster": "c"}}],
    "clusters": [{"name": "c", "cluster": {"server": SERVER}}],
}


def test_the_kubeconfig_is_found_as_kubectl_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--kubeconfig, $KUBECONFIG, ~/.kube/config, k3s's; and a sentence where there is none."""
    monkeypatch.setattr(access, "OF_DISTRIBUTIONS", (tmp_path / "k3s.yaml",))
    monkeypatch.setattr(access, "SERVICE_ACCOUNT", tmp_path)
    environ = {"HOME": str(tmp_path)}
    with pytest.raises(ConfigError, match="no kubeconfig here that you may read; give"):
        access.find(None, environ)
    found = tmp_path / "some"
    found.write_text(json.dumps(COMPLETE))
    assert access.find(found, {}).server == SERVER
    assert access.find(None, {"KUBECONFIG": f"{found}:/other"}).server == SERVER
    (tmp_path / "k3s.yaml").write_bytes(found.read_bytes())
    assert access.find(None, environ).server == SERVER
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").write_text("[]")
    with pytest.raises(ConfigError, match=r"\.kube/config: is no kubeconfig"):
        access.find(None, environ)
    assert access.find(None, {**environ, "KUBECONFIG": f":{found}"}).server == SERVER


def test_several_kubeconfigs_are_merged_as_kubectl_does(tmp_path: Path) -> None:
    """The first one that names something counts for it, whole; paths are those of its own file."""
    server = {"server": SERVER, "certificate-authority": "ca.crt"}
    context = {"cluster": "c", "user": "u"}
    contents = {
        "a/empty": "",
        "a/users": {"users": [{"name": "u", "user": {"tokenFile": "token"}}]},
        "b/clusters": {
            "current-context": "x",
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"token": "of b"}}],
        },
        "c/contexts": {
            "current-context": "y",
            "contexts": [{"name": name, "context": context} for name in ("x", "y")],
            "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.2:6443"}}],
        },
    }
    files = [tmp_path / "none"]
    for name, content in contents.items():
        files.append(tmp_path / name)
        files[-1].parent.mkdir(exist_ok=True)
        files[-1].write_text(json.dumps(content) if content else "")
    found = access.find(None, {"KUBECONFIG": ":".join(map(str, files))})
    assert (found.server, found.authority) == (SERVER, tmp_path / "b/ca.crt")
    assert found.token == tmp_path / "a/token"
    with pytest.raises(ConfigError, match=r"/a/users:.*/b/clusters: has no context named 'x'"):
        access.find(None, {"KUBECONFIG": ":".join(map(str, files[:-1]))})
    files[2].write_text("[")
    with pytest.raises(ConfigError, match="/a/users is not YAML"):
        access.find(None, {"KUBECONFIG": ":".join(map(str, files))})
    with pytest.raises(ConfigError, match="/none: No such file"):
        access.find(None, {"KUBECONFIG": str(files[0])})
