# SPDX-License-Identifier: Apache-2.0
"""Whose word for a pod counts: the plugin's, the runtime's cache's, or both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agentparts import Part, Parts

from vxlane.agent.prepare import prepare
from vxlane.agent.server.operations import Operations
from vxlane.cli.agent import agent as command
from vxlane.config import Config, PodSource
from vxlane.util.dirty import Dirty

ADD = {
    "op": "add",
    "container_id": "c1",
    "ifname": "eth0",
    "host_ifname": "veth1",
    "mac": "02:00:00:00:00:01",
    "addresses": ["10.42.1.2"],
}


@pytest.mark.parametrize("operation", ["add", "check"])
@pytest.mark.parametrize("source", list(PodSource))
def test_what_the_plugin_is_answered(source: PodSource, operation: str, tmp_path: Path) -> None:
    """With `watch` alone the plugin's word counts for nothing, and the answer says what to do."""
    done: list[str] = []
    agent: Any = Part("agent", done)
    agent.config, agent.pods = Config("node1", tmp_path, pod_source=source), Part("pods", done)
    answer = Operations(agent).answer({**ADD, "op": operation})
    if source is PodSource.WATCH:
        assert "vxlane uninstall" in answer["reason"]
        assert (answer["accelerated"], done) == (False, [])
    else:
        assert (answer["accelerated"], done) == (True, [f"pods.{operation}"])


def test_the_end_of_a_pod_counts_always(tmp_path: Path) -> None:
    """DEL is heard with `watch` too: it is true whoever says it."""
    done: list[str] = []
    agent: Any = Part("agent", done)
    agent.config = Config("node1", tmp_path, pod_source=PodSource.WATCH)
    agent.pods = Part("pods", done)
    Operations(agent).answer({**ADD, "op": "remove"})
    assert done == ["pods.remove"]


@pytest.mark.parametrize("source", list(PodSource))
def test_which_agents_follow_the_cache(
    source: PodSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All but those that hear the plugin alone follow it, and read it whole at each resync; every
    agent reads it once at its start.
    """
    done: list[str] = []
    cache, keeper = Part("cache", done), Part("keeper", done)
    cache.answers["start"], keeper.answers["start"] = 7, None
    monkeypatch.setattr("vxlane.agent.runtime_files.CacheWatch", lambda *_: cache)
    monkeypatch.setattr("vxlane.agent.runtime_files.PluginKeeper", lambda *_: keeper)
    files = Parts(monkeypatch, tmp_path).agent(pod_source=source).runtime_files
    files.read_pods()
    followed = files.follow()
    files.resync()
    pods = [call for call in done if call.startswith("cache.")]
    assert [call for call in done if call.startswith("keeper.")] == [
        *("keeper.start", "keeper.settle", "keeper.settle")
    ]
    if source is PodSource.PLUGIN:
        assert (pods, followed) == (["cache.read"], [])
        return
    assert pods == ["cache.read", "cache.start", "cache.read"]
    [(descriptor, action)] = followed
    assert (descriptor, action()) == (7, Dirty.PODS)
    assert done[-1] == "cache.on_event"


@pytest.mark.parametrize(
    ("words", "caches"),
    [
        ([], ["/var/lib/cni"]),
        (["--host-root", "/host"], ["/host/var/lib/cni"]),
        (["--host-root", "/host", "--cni-cache-dir", "/a", "--cni-cache-dir", "/b"], ["/a", "/b"]),
    ],
)
def test_where_the_cache_is(words: list[str], caches: list[str]) -> None:
    """Below the node's root directory, unless a person says otherwise; both tell by default."""
    context = command.make_context("agent", ["--mode", "adopt", *words])
    config, _ = prepare(context.params)
    assert config.caches == tuple(map(Path, caches))
    assert config.pod_source is PodSource.BOTH
