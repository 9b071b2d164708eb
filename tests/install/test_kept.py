# SPDX-License-Identifier: Apache-2.0
"""An installation of the CNI plugin that others undo, and the agent's keeper puts right."""

import base64
import json
import os
import select
import shutil
import subprocess

import pytest
from cniplace import FLANNEL, Place, is_kept_waiting

from vxlane.errors import ConfigError
from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for
from vxlane.runtime import installed, interpreter
from vxlane.runtime.installed import Installed, PluginKeeper
from vxlane.util import files

K3S = "var/lib/rancher/k3s"


class Kept(Place):
    """A node with a k3s of before 1.31, and an agent's keeper."""

    def __init__(self, root):
        super().__init__(root / K3S)
        self.root = root
        self.cache = root / "var/lib/cni"
        self.conf = root / K3S / "agent/etc/cni/net.d"
        self.conf.mkdir(parents=True)
        (root / "usr/bin").mkdir(parents=True)
        (root / "usr/bin/python3").touch(mode=0o755)
        self.release("old")
        self.keeper = PluginKeeper(None, root)
        self.descriptor = self.keeper.start()

    def release(self, name):
        """Put another release of k3s in force, as its start does."""
        self.bin = self.root / K3S / "data" / name / "bin"
        self.bin.mkdir(parents=True)
        file = self.root / K3S / "agent/etc/containerd/config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = (
            "version = 2",
            '[plugins."io.containerd.grpc.v1.cri".cni]',
            f'bin_dir = "/{self.bin.relative_to(self.root)}"',
            f'conf_dir = "/{self.conf.relative_to(self.root)}"',
        )
        file.write_text("\n".join(lines), encoding="utf-8")

    def vxlane(self, command, *options):
        """By the node's root alone: the directories are found."""
        return self.run(command, "--host-root", self.root, *options)

    def settle(self):
        """The keeper works for each event until there is none."""
        while select.select([self.descriptor], [], [], 0)[0]:
            self.keeper.on_event()

    def is_called(self):
        """Whether a list names the plugin, and the plugin is there."""
        lists = [self.conf / "00-vxlane.conflist", self.conf / "cbr0" / "99-vxlane.conf"]
        named = [b'"vxlane"' in file.read_bytes() for file in lists if file.exists()]
        return named == [True] and os.access(self.bin / "vxlane", os.X_OK)


@pytest.fixture(params=["drop-in", "conflist"])
def place(request, tmp_path):
    """The plugin is installed, in either form."""
    place = Kept(tmp_path)
    place.flannel()
    done = place.vxlane("install", "--form", request.param)
    assert done.returncode == 0, done.stderr
    place.keeper.settle()
    place.settle()
    yield place
    place.keeper.close()


def test_directories_are_found(place):
    """Install writes where k3s looks, without an option that says so."""
    assert place.is_called()


def test_what_is_right_is_left_alone(place):
    """The keeper writes nothing where all is as it was installed."""
    before = {file: file.stat().st_mtime_ns for file in place.root.rglob("*")}
    place.keeper.settle()
    place.settle()
    assert before == {file: file.stat().st_mtime_ns for file in place.root.rglob("*")}


def test_an_uninstall_meanwhile_comes_behind(place, monkeypatch):
    """Else the keeper would write a list of before, which names a plugin that is gone for good."""
    plan, runs = Installed.plan, []

    def waited_for(self, directory):
        made = plan(self, directory)
        if not runs:
            command = [program("vxlane"), "uninstall", "--host-root", place.root]
            runs.append(run := subprocess.Popen(command))
            wait_for(lambda: run.poll() == 0 or is_kept_waiting(run), "its turn", seconds=20)
        return made

    monkeypatch.setattr(Installed, "plan", waited_for)
    place.flannel(cniVersion="1.0.0")
    place.keeper.settle()
    assert runs[0].wait(timeout=20) == 0
    assert list(place.conf.rglob("*vxlane*")) == []


def test_an_install_is_not_waited_for(place):
    """Pods ask the agent meanwhile."""
    with files.alone(place.bin):
        min(place.conf.rglob("*vxlane.conf*")).unlink()
        place.settle()
        assert not place.is_called()
    place.keeper.settle()
    assert place.is_called()


def test_k3s_writes_its_list_anew(place):
    """As each start does, also with another content: the plugin follows the new list's."""
    tuning = {"type": "tuning"}
    place.flannel(plugins=[*FLANNEL["plugins"], tuning])
    place.settle()
    assert place.is_called()
    ours = place.conf / "00-vxlane.conflist"
    if ours.exists():
        assert place.listed()["plugins"][-2:] == [tuning, {"type": "vxlane"}]


def test_a_list_of_a_version_that_the_plugin_does_not_speak(place, caplog):
    """The plugin leaves it, for every pod would fail, and comes back with a version it speaks."""
    caplog.set_level("INFO")
    place.flannel(cniVersion="1.2.0")
    with pytest.raises(ConfigError, match="which the plugin does not speak"):
        place.settle()
    assert not place.is_called()
    assert f"removed {place.conf}" in caplog.text
    place.flannel()
    place.settle()
    assert place.is_called()


def test_a_service_mesh_adds_to_the_first_list(place):
    """As Istio does, whose plugin goes behind all others, and whose JSON has its keys in order: it
    stays where it is, also when flannel's list is another, until Istio takes it away.
    """
    first = min(place.conf.glob("*.conflist"))
    listed = place.listed(first.name)
    mesh = {"type": "istio-cni", "log_level": "info"}
    added = {**listed, "plugins": [*listed["plugins"], mesh]}
    first.write_text(json.dumps(added, sort_keys=True), encoding="utf-8")
    written = first.stat().st_mtime_ns
    place.settle()
    assert first.stat().st_mtime_ns == written
    if first.name == "00-vxlane.conflist":
        place.flannel(plugins=[*FLANNEL["plugins"], mesh, {"type": "tuning"}])
        place.settle()
        kinds = [plugin["type"] for plugin in place.listed()["plugins"]]
        assert kinds == ["flannel", "portmap", "tuning", "vxlane", "istio-cni"]
        place.flannel()
        first.write_text(json.dumps(listed), encoding="utf-8")
        place.settle()
        assert place.listed() == listed


def test_a_service_mesh_moves_to_our_list_and_leaves(place):
    """As Istio does, which was there first: it leaves flannel's list as it is when ours is first,
    and at its end takes its plugin out of ours alone, and deletes it. No list names it then.
    """
    mesh = {"type": "istio-cni"}
    theirs = place.flannel(plugins=[*FLANNEL["plugins"], mesh])
    theirs.chmod(0o600)
    place.settle()
    first = min(place.conf.glob("*.conflist"))
    kinds = [plugin["type"] for plugin in place.listed(first.name)["plugins"]]
    assert "istio-cni" in kinds
    for added in ([mesh], []):
        listed = place.listed(first.name)
        others = [plugin for plugin in listed["plugins"] if plugin != mesh]
        first.write_text(json.dumps({**listed, "plugins": [*others, *added]}), encoding="utf-8")
        place.settle()
        named = [file for file in place.conf.rglob("*.conf*") if b"istio" in file.read_bytes()]
        assert bool(named) == bool(added)
    assert place.listed(theirs.name) == FLANNEL
    assert theirs.stat().st_mode & 0o777 == 0o600
    assert place.is_called()


def test_a_service_mesh_in_both_lists(place):
    """As Linkerd has it, which takes its plugin out of one after the other: our list follows."""
    mesh = {"type": "linkerd-cni"}
    place.flannel(plugins=[*FLANNEL["plugins"], mesh])
    for file in sorted(place.conf.glob("*.conflist")):
        listed = place.listed(file.name)
        others = [plugin for plugin in listed["plugins"] if plugin != mesh]
        file.write_text(json.dumps({**listed, "plugins": [*others, mesh]}), encoding="utf-8")
    place.settle()
    place.flannel()
    place.settle()
    first = min(place.conf.glob("*.conflist"))
    listed = place.listed(first.name)
    if first.name == "00-vxlane.conflist":
        assert listed["plugins"].pop() == mesh
        first.write_text(json.dumps(listed), encoding="utf-8")
    place.settle()
    assert b"linkerd" not in b"".join(file.read_bytes() for file in place.conf.rglob("*.conf*"))
    assert place.is_called()


def test_a_list_that_is_half_written(place):
    """It is an error until the rest is there."""
    file = place.flannel()
    content = file.read_bytes()
    file.write_bytes(content[:40])
    with pytest.raises(ConfigError, match="is not JSON"):
        place.keeper.settle()
    file.write_bytes(content)
    place.settle()
    assert place.is_called()


def test_somebody_clears_the_directory(place):
    """All lists and drop-ins go, flannel's comes back, and so does ours."""
    for entry in place.conf.glob("[!.]*"):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    place.flannel()
    place.settle()
    assert place.is_called()


def test_a_new_release_has_another_directory(place):
    """The executable is where the new release of k3s looks, and uninstall removes both, also after
    another install.
    """
    old = place.bin / "vxlane"
    place.release("new")
    place.flannel()
    place.settle()
    assert place.is_called()
    assert (place.bin / "vxlane").read_bytes() == old.read_bytes()
    assert place.vxlane("install").returncode == 0
    place.vxlane("uninstall")
    assert not old.exists()
    assert not (place.bin / "vxlane").exists()


def test_a_new_release_gets_the_interpreter_too(place):
    """A launcher without what it starts would fail every pod; uninstall removes both copies."""
    old = place.bin
    interpreter.put(old / "vxlane", b"launcher", {"lib/libc.so.6": (0o644, b"library")})
    place.release("new")
    place.flannel()
    place.settle()
    for directory in (old, place.bin):
        assert (directory / "vxlane").read_bytes() == b"launcher"
        assert (directory / ".vxlane/current/lib/libc.so.6").read_bytes() == b"library"
    place.vxlane("uninstall")
    assert (list(old.iterdir()), list(place.bin.iterdir())) == ([], [])


def test_without_its_executable_it_is_not_called(place):
    """A plugin that is gone leaves the list, or every pod would fail; it comes back with it."""
    program = place.bin / "vxlane"
    content = program.read_bytes()
    program.unlink()
    with pytest.raises(ConfigError, match="is gone; run vxlane install again"):
        place.settle()
    assert b'"vxlane"' not in b"".join(f.read_bytes() for f in place.conf.rglob("*.conf*"))
    program.write_bytes(content)
    program.chmod(0o755)
    place.settle()
    assert place.is_called()


def test_uninstall_is_respected(place):
    """What a person takes away stays away, also while the executable waits for pods to end."""
    results = place.cache / "results"
    results.mkdir(parents=True)
    plugins = json.dumps({"plugins": [{"type": "vxlane"}]}).encode()
    entry = {"config": base64.b64encode(plugins).decode()}
    (results / "cbr0-c1-eth0").write_text(json.dumps(entry), encoding="utf-8")
    assert "kept" in place.vxlane("uninstall").stdout
    place.settle()
    place.flannel()
    place.settle()
    assert not place.is_called()
    assert (place.bin / "vxlane").exists()
    shutil.rmtree(place.cache)
    place.vxlane("uninstall")
    place.settle()
    assert [file.name for file in place.conf.iterdir()] == ["10-flannel.conflist"]
    assert not (place.bin / "vxlane").exists()


def test_a_note_that_nobody_wrote(tmp_path):
    """It is named, and the next step."""
    (tmp_path / ".vxlane.installed").write_text('{"network": "cbr0"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="run vxlane install again"):
        installed.read(tmp_path)


def test_a_damaged_note_is_written_anew(place):
    """By another install, as its error says."""
    (place.conf / ".vxlane.installed").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="run vxlane install again"):
        place.keeper.settle()
    assert place.vxlane("install").returncode == 0
    assert installed.read(place.conf).programs == (place.bin / "vxlane",)


def test_a_directory_that_was_given(tmp_path):
    """A directory that --cni-conf-dir names is kept, whatever the runtime's is."""
    place = Place(tmp_path)
    place.flannel()
    place.vxlane("install", "--form", "conflist")
    (place.conf / "00-vxlane.conflist").unlink()
    keeper = PluginKeeper(place.conf, tmp_path / "host")
    keeper.settle()
    assert place.files() == ["bin/vxlane", "net.d/00-vxlane.conflist", "net.d/10-flannel.conflist"]
