# SPDX-License-Identifier: Apache-2.0
"""Which form of configuration suits the runtime, told by its executable."""

import contextlib
import os
import shutil
import subprocess

import pytest

from vxlane.install import runtime

KEY = b"loadOnlyInlinedPlugins"


@pytest.fixture(autouse=True)
def _no_others(monkeypatch, tmp_path):
    """A runtime of this machine's own is none of the test's."""
    every = runtime._running

    def ours():
        return (one for one in every() if os.path.realpath(one).startswith(f"{tmp_path}/"))

    monkeypatch.setattr(runtime, "_running", ours)


@contextlib.contextmanager
def running(directory, name, tail):
    """A process whose executable has the name of a runtime, and these bytes in it."""
    program = directory / name
    shutil.copy("/bin/sleep", program)
    with program.open("ab") as file:
        file.write(tail)
    with subprocess.Popen([str(program), "60"]) as process:
        yield
        process.kill()


@pytest.mark.parametrize("name", ["containerd", "crio", "k3s", "rke2", "cri-dockerd"])
@pytest.mark.parametrize(("tail", "reads"), [(KEY, True), (b"", False)])
def test_runtime_that_runs(tmp_path, name, tail, reads):
    """Whether a runtime reads drop-ins is told by its executable, whatever its path."""
    with running(tmp_path, name, tail):
        assert runtime.read_drop_ins() is reads


def test_docker(tmp_path):
    """Beside cri-dockerd, which reads none, the containerd that does is not asked for pods."""
    with running(tmp_path, "containerd", KEY), running(tmp_path, "cri-dockerd", b""):
        assert runtime.read_drop_ins() is False


def test_no_runtime(monkeypatch, tmp_path):
    """With no runtime to be found the older form is chosen."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.read_drop_ins() is False
