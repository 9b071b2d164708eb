# SPDX-License-Identifier: Apache-2.0
"""Which of the runtime's files are taken for pods, as they are written."""

import json
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from vxlane.pods.watch import CacheWatch


class Pods:
    """Writes down which pods are added."""

    def __init__(self) -> None:
        self.added: list[str] = []

    def add_cached(self, pods) -> None:
        """See `Pods`."""
        self.added += [pod.container_id for pod in pods]


@pytest.fixture
def pods() -> Pods:
    """None yet."""
    return Pods()


@pytest.fixture
def watch(tmp_path: Path, pods: Pods) -> Iterator[CacheWatch]:
    """Follows a cache that is not there yet."""
    watch = CacheWatch([tmp_path / "cni"], pods)
    watch.start()
    yield watch
    watch.close()


def entry(container: str = "c1", **keys: object) -> str:
    """The content of a file of libcni's."""
    interfaces = [{"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/x"}]
    result = {"interfaces": interfaces, "ips": [{"address": "10.42.66.2/24", "interface": 1}]}
    known = {"containerId": container, "ifName": "eth0", "networkName": "cbr0", "result": result}
    return json.dumps({**known, **keys})


def results(cache: Path) -> Path:
    """The directory of its results, made if need be."""
    directory = cache / "cni" / "results"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def test_each_file_is_a_pod(watch: CacheWatch, pods: Pods, tmp_path: Path) -> None:
    """The first pod of a node, whose directory comes with it, and those after it, each once."""
    (results(tmp_path) / "one").write_text(entry("c1"))
    watch.on_event()
    assert pods.added == ["c1"]
    (results(tmp_path) / "two").write_text(entry("c2"))
    watch.on_event()
    assert pods.added == ["c1", "c2"]


def test_a_file_that_goes_adds_nothing(watch: CacheWatch, pods: Pods, tmp_path: Path) -> None:
    """A pod that ended before its file was read is none."""
    file = results(tmp_path) / "one"
    watch.on_event()
    file.write_text(entry("c1"))
    file.unlink()
    watch.on_event()
    assert pods.added == []


HOSTILE = {
    "half": entry()[:-9],
    "list": "[]",
    "deep": "[" * 100_000,
    "path": entry("../../../etc/cron.d/x"),
    "no text": entry("c1", containerId=7),
    "ifname": entry(ifName="../eth0"),
    "no character": entry(ifName="eth\ud800"),
    "network": entry(networkName="../x"),
    "no address": entry(result={"ips": [{"address": "here"}]}),
    "no result": entry(result="none"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_libcni_would_not_write(
    watch: CacheWatch, pods: Pods, tmp_path: Path, content: str
) -> None:
    """It is left alone, and the files beside it are read."""
    (results(tmp_path) / "bad").write_text(content)
    (results(tmp_path) / "good").write_text(entry("c2"))
    watch.on_event()
    watch.read()
    assert pods.added == ["c2", "c2"]


def test_what_is_no_file(watch: CacheWatch, pods: Pods, tmp_path: Path) -> None:
    """A FIFO or a directory among the files blocks nobody."""
    os.mkfifo(results(tmp_path) / "fifo")
    (results(tmp_path) / "directory").mkdir()
    watch.on_event()
    watch.read()
    assert pods.added == []


def test_without_inotify(pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel gives no watch, the files are found when the cache is read."""

    def refused(_: object) -> None:
        raise OSError(24, "Too many open files", "inotify")

    monkeypatch.setattr("vxlane.pods.watch.DirectoryWatch", refused)
    watch = CacheWatch([tmp_path / "cni"], pods)
    assert watch.start() is None
    (results(tmp_path) / "one").write_text(entry("c1"))
    watch.on_event()
    assert pods.added == []
    watch.read()
    assert pods.added == ["c1"]
    watch.close()


def test_the_descriptor_wakes(tmp_path: Path, pods: Pods) -> None:
    """A selector wakes when a pod is written, and not again for the same one."""
    watch = CacheWatch([tmp_path / "cni"], pods)
    descriptor = watch.start()
    results(tmp_path)
    watch.on_event()
    assert not select.select([descriptor], [], [], 0)[0]
    (results(tmp_path) / "one").write_text(entry("c1"))
    assert select.select([descriptor], [], [], 1)[0]
    watch.on_event()
    assert not select.select([descriptor], [], [], 0)[0]
    watch.close()
