# SPDX-License-Identifier: Apache-2.0
"""Where runtimes have their CNI files, told by their processes and configurations."""

import json
from pathlib import Path

import pytest

from vxlane.errors import ConfigError
from vxlane.runtime import cni_places
from vxlane.runtime.cni_places import CniPlaces

K3S = "/var/lib/rancher/k3s"
K3S_FILE = f"{K3S}/agent/etc/containerd/config.toml"
V1 = """
[plugins.cri.cni]
  conf_dir = "{conf}"
  bin_dir = "{bin}"
"""
V2 = """
version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "{conf}"
  bin_dir = "{bin}"
"""
V3 = """
version = 3
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dir = ''
  bin_dirs = ["{bin}"]
  conf_dir = "{conf}"
"""


class Host:
    """A node's root directory."""

    def __init__(self, root):
        self.root = root

    def write(self, path, content=""):
        """A file of that content."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")

    def toml(self, path, form, conf, plugins):
        """A configuration of containerd."""
        self.write(path, form.format(conf=conf, bin=plugins))

    def make(self, *directories):
        """Directories that are there."""
        for directory in directories:
            (self.root / directory.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def network(self, conf, name="cbr0"):
        """A list of a network."""
        self.write(f"{conf}/10-flannel.conflist", json.dumps({"name": name, "plugins": []}))

    def process(self, number, program, *arguments):
        """A process that runs."""
        directory = self.root / "proc" / str(number)
        directory.mkdir(parents=True)
        words = [program, *arguments]
        (directory / "cmdline").write_bytes(b"\0".join(map(str.encode, words)) + b"\0")

    def found(self, network="cbr0"):
        """Both directories, as paths of the node."""
        places = cni_places.find(network, self.root)
        return tuple(f"/{d.relative_to(self.root)}" for d in (places.conf_dir, places.bin_dir))


@pytest.fixture
def host(tmp_path):
    """A node without a runtime."""
    return Host(tmp_path)


def test_a_node_without_a_runtime(host):
    """Kubeadm's and everybody's defaults."""
    assert host.found() == ("/etc/cni/net.d", "/opt/cni/bin")


@pytest.mark.parametrize("form", [V1, V2, V3], ids=["v1", "v2", "v3"])
def test_containerd(host, form):
    """Each version of its configuration is read, Debian's directory of plugins for example."""
    host.toml("/etc/containerd/config.toml", form, "/etc/cni/here.d", "/usr/lib/cni")
    assert host.found() == ("/etc/cni/here.d", "/usr/lib/cni")


def test_containerd_imports(host):
    """What a configuration imports counts more than what stands in it."""
    host.write("/etc/containerd/config.toml", 'imports = ["conf.d/*.toml", "/etc/more/*.toml"]\n')
    host.toml("/etc/containerd/conf.d/a.toml", V2, "/a", "/b")
    assert host.found() == ("/a", "/b")
    host.toml("/etc/more/a.toml", V2, "/c", "/d")
    assert host.found() == ("/c", "/d")


@pytest.mark.parametrize("form", [V2, V3], ids=["1.x", "2.x"])
def test_k3s(host, form):
    """By its containerd's configuration, in releases with either containerd."""
    host.toml(K3S_FILE, form, f"{K3S}/agent/etc/cni/net.d", f"{K3S}/data/cni")
    assert host.found() == (f"{K3S}/agent/etc/cni/net.d", f"{K3S}/data/cni")


def test_older_k3s_moves(host):
    """The directory of plugins is the one of the release that runs."""
    for release in ("aaaa", "bbbb"):
        host.toml(K3S_FILE, V2, f"{K3S}/agent/etc/cni/net.d", f"{K3S}/data/{release}/bin")
        assert host.found() == (f"{K3S}/agent/etc/cni/net.d", f"{K3S}/data/{release}/bin")


def test_k3s_that_says_nothing(host):
    """A configuration without the section has k3s' usual places, the newer ones first."""
    host.write(K3S_FILE, "version = 2\n")
    host.make(f"{K3S}/data/current/bin")
    assert host.found() == (f"{K3S}/agent/etc/cni/net.d", f"{K3S}/data/current/bin")
    host.make(f"{K3S}/data/cni")
    assert host.found() == (f"{K3S}/agent/etc/cni/net.d", f"{K3S}/data/cni")


def test_k3s_elsewhere(host):
    """A k3s with another --data-dir is found by the containerd that it runs."""
    data = "/srv/k3s"
    file = f"{data}/agent/etc/containerd/config.toml"
    host.toml(file, V2, f"{data}/agent/etc/cni/net.d", f"{data}/data/cni")
    host.toml("/etc/containerd/config.toml", V2, "/unused", "/unused")
    host.process(40, f"{data}/data/cafe/bin/containerd", "-c", file)
    assert host.found() == (f"{data}/agent/etc/cni/net.d", f"{data}/data/cni")


def test_rke2(host):
    """RKE2 leaves the defaults as they are."""
    file = "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"
    host.write(file, "version = 2\n")
    host.process(7, "/var/lib/rancher/rke2/bin/containerd", "-c", file)
    assert host.found() == ("/etc/cni/net.d", "/opt/cni/bin")


def test_microk8s(host):
    """By its containerd's configuration, with both spellings of the option."""
    data = "/var/snap/microk8s/current"
    host.toml(f"{data}/args/containerd.toml", V2, f"{data}/args/cni-network", f"{data}/opt/cni/bin")
    wanted = (f"{data}/args/cni-network", f"{data}/opt/cni/bin")
    assert host.found() == wanted
    host.process(9, "/snap/microk8s/1/bin/containerd", f"--config={data}/args/containerd.toml")
    assert host.found() == wanted


def test_crio(host):
    """crio.conf, and over it each file of crio.conf.d; an empty list says nothing."""
    host.write("/etc/crio/crio.conf", '[crio.network]\nnetwork_dir = "/a"\nplugin_dirs = ["/b"]\n')
    assert host.found() == ("/a", "/b")
    host.write("/etc/crio/crio.conf.d/10-x.conf", '[crio.network]\nplugin_dirs = ["/c", "/d"]\n')
    host.write("/etc/crio/crio.conf.d/20-x.conf", "[crio.network]\nplugin_dirs = []\n")
    host.make("/d")
    assert host.found() == ("/a", "/d")


def test_docker_makes_no_pods(host):
    """Docker's containerd has no CRI: another one that runs is asked."""
    host.write("/run/docker/containerd.toml", 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    host.process(5, "/usr/bin/containerd", "--config", "/run/docker/containerd.toml")
    host.process(6, "/usr/bin/containerd")
    host.toml("/etc/containerd/config.toml", V2, "/a", "/b")
    assert host.found() == ("/a", "/b")


def test_the_runtime_of_the_network_counts(host):
    """Of two runtimes it is the one with the network, whichever comes first."""
    host.toml("/etc/containerd/config.toml", V2, "/a", "/b")
    host.toml(K3S_FILE, V2, "/c", "/d")
    host.process(5, "/usr/bin/containerd")
    host.process(6, f"{K3S}/data/cafe/bin/containerd", "-c", K3S_FILE)
    assert host.found() == ("/a", "/b")
    host.write("/a/00-broken.conflist", "{")
    host.network("/a", "podman")
    host.network("/c")
    assert host.found() == ("/c", "/d")
    assert host.found("podman") == ("/a", "/b")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[plugins", "is not TOML"),
        (f"x = {'[' * 10_000}", "is not TOML"),
        ("plugins = 7", "a value where a table belongs"),
        ("plugins.cri = 7", "a value where a table belongs"),
        ("plugins.cri.cni = 7", "a value where a table belongs"),
        ('imports = "/etc/containerd/conf.d/*.toml"', "a value where a list belongs"),
        ('disabled_plugins = "cri"', "a value where a list belongs"),
        ('[plugins.cri.cni]\nconf_dir = "net.d"', "a path that is not absolute"),
        ("[plugins.cri.cni]\nbin_dir = 7", "a path that is not absolute"),
    ],
)
def test_a_configuration_that_cant_be_read(host, content, says):
    """It is named, with the options that do without it."""
    host.write("/etc/containerd/config.toml", content)
    with pytest.raises(ConfigError, match=says) as raised:
        host.found()
    assert "--cni-conf-dir" in str(raised.value)


def test_empty_variables_name_nothing(tmp_path, monkeypatch):
    """As for options of the command line; else the directory that it is called in would be one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cni_places, "find", lambda _, root: CniPlaces(root / "conf", root / "bin"))
    for name in ("VXLANE_HOST_ROOT", "VXLANE_CNI_CONF_DIR", "VXLANE_CNI_BIN_DIR"):
        monkeypatch.setenv(name, "")
    assert cni_places.told("cbr0") == CniPlaces(Path("/conf"), Path("/bin"))


def test_links_are_the_nodes(host):
    """As they are in a container that has the node's root directory at another place, where a link
    to /usr would lead to the container's.
    """
    host.make("/usr/lib/cni", "/opt/cni")
    host.network("/srv/cni/net.d")
    for place, target in (("opt/cni/bin", "/usr/lib/cni"), ("etc/cni", "/etc/alternatives/cni")):
        (host.root / place).parent.mkdir(exist_ok=True)
        (host.root / place).symlink_to(target)
    host.make("/etc/alternatives")
    (host.root / "etc/alternatives/cni").symlink_to("/srv/cni")
    assert host.found() == ("/srv/cni/net.d", "/usr/lib/cni")
    (host.root / "here").symlink_to(host.root)
    assert cni_places.find("cbr0", host.root / "here").conf_dir.is_dir()
    (host.root / "srv/cni").rename(host.root / "srv/gone")
    (host.root / "srv/cni").symlink_to("/etc/cni")  # In a circle: as a path that is not there.
    assert cni_places.find("cbr0", host.root).bin_dir == host.root / "usr/lib/cni"
