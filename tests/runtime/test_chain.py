# SPDX-License-Identifier: Apache-2.0
"""The driver of CNI chains calls plugins as libcni does."""

import base64
import json
import stat
from pathlib import Path

import pytest

from vxlane.errors import ToolError
from vxlane.runtime.chain import Chain, ContainerInterface

PLUGIN = """\
#!/bin/sh
# Writes down its call; fails where FAIL-<command>-<name> exists; answers ADD with its name.
cd "$(dirname "$0")"
name=$(basename "$0")
cat >"stdin-$CNI_COMMAND-$name"
env | grep ^CNI_ | sort >"env-$CNI_COMMAND-$name"
echo "$CNI_COMMAND $name" >>calls
if [ -e "FAIL-$CNI_COMMAND-$name" ]; then
	echo '{"cniVersion": "0.4.0", "code": 11, "msg": "not now"}'
	exit 1
fi
[ "$CNI_COMMAND" != ADD ] || echo "{\\"cniVersion\\": \\"0.4.0\\", \\"by\\": \\"$name\\"}"
"""
INTERFACE = ContainerInterface(
    "c1", Path("/run/netns/pod"), capabilities={"portMappings": [{"hostPort": 80}], "mac": "x"}
)


@pytest.fixture
def plugins(tmp_path):
    """A directory with two plugins that write their calls down."""
    for name in ("first", "second"):
        file = tmp_path / name
        file.write_text(PLUGIN, encoding="utf-8")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return tmp_path


def chain(plugins, version="0.4.0"):
    """Both plugins as one network; the second asks for port mappings."""
    listed = [
        {"type": "first", "key": 1},
        {"type": "second", "capabilities": {"portMappings": True}},
    ]
    conflist = {"cniVersion": version, "name": "net", "plugins": listed}
    return Chain(conflist, namespace=None, path=(plugins,), cache=plugins / "cache")


def calls(plugins):
    """What was called, in order."""
    return (plugins / "calls").read_text(encoding="utf-8").splitlines()


def stdin(plugins, call):
    """What a plugin was told."""
    return json.loads((plugins / f"stdin-{call}").read_text(encoding="utf-8"))


def test_add_hands_results_on(plugins):
    """ADD goes first to last, each gets the result before it, the last one's is the answer."""
    assert chain(plugins).add(INTERFACE) == {"cniVersion": "0.4.0", "by": "second"}
    assert calls(plugins) == ["ADD first", "ADD second"]
    assert stdin(plugins, "ADD-first") == {
        "type": "first",
        "key": 1,
        "name": "net",
        "cniVersion": "0.4.0",
    }
    assert stdin(plugins, "ADD-second") == {
        "type": "second",
        "name": "net",
        "cniVersion": "0.4.0",
        "runtimeConfig": {"portMappings": [{"hostPort": 80}]},
        "prevResult": {"cniVersion": "0.4.0", "by": "first"},
    }


def test_environment(plugins):
    """A plugin's environment names command, container, namespace, interface, path and args."""
    chain(plugins).add(INTERFACE)
    assert (plugins / "env-ADD-first").read_text(encoding="utf-8").splitlines() == [
        "CNI_ARGS=IgnoreUnknown=1",
        "CNI_COMMAND=ADD",
        "CNI_CONTAINERID=c1",
        "CNI_IFNAME=eth0",
        "CNI_NETNS=/run/netns/pod",
        f"CNI_PATH={plugins}",
    ]


def test_result_is_cached_as_libcni_does(plugins):
    """The cache entry has libcni's name, kind and keys, its config in base64."""
    chain(plugins).add(INTERFACE)
    file = plugins / "cache" / "results" / "net-c1-eth0"
    entry = json.loads(file.read_text(encoding="utf-8"))
    assert json.loads(base64.b64decode(entry.pop("config")))["name"] == "net"
    assert entry == {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "ifName": "eth0",
        "networkName": "net",
        "netns": "/run/netns/pod",
        "cniArgs": [["IgnoreUnknown", "1"]],
        "result": {"cniVersion": "0.4.0", "by": "second"},
    }


@pytest.mark.parametrize(("version", "told"), [("0.3.1", False), ("0.4.0", True), ("1.0.0", True)])
def test_delete_goes_backwards(plugins, version, told):
    """DEL goes last to first; from version 0.4.0 on plugins are told the final result."""
    driver = chain(plugins, version)
    driver.add(INTERFACE)
    driver.delete(INTERFACE)
    assert calls(plugins)[2:] == ["DEL second", "DEL first"]
    assert ("prevResult" in stdin(plugins, "DEL-first")) is told
    assert not list((plugins / "cache" / "results").iterdir())


def test_failed_add_is_undone(plugins):
    """When a plugin fails, all are told to DEL, and its code and words are the error."""
    (plugins / "FAIL-ADD-second").touch()
    with pytest.raises(ToolError, match=r"CNI ADD second c1: not now \(code 11\)"):
        chain(plugins).add(INTERFACE)
    assert calls(plugins) == ["ADD first", "ADD second", "DEL second", "DEL first"]


def test_failed_delete_stops_there(plugins):
    """DEL goes no further than the plugin that fails, and the result is kept for the next."""
    driver = chain(plugins)
    driver.add(INTERFACE)
    (plugins / "FAIL-DEL-second").touch()
    with pytest.raises(ToolError, match="CNI DEL second c1: not now"):
        driver.delete(INTERFACE)
    assert calls(plugins)[2:] == ["DEL second"]
    assert list((plugins / "cache" / "results").iterdir())


def test_check_tells_the_final_result(plugins):
    """CHECK goes first to last with the cached result."""
    driver = chain(plugins)
    driver.add(INTERFACE)
    driver.check(INTERFACE)
    assert calls(plugins)[2:] == ["CHECK first", "CHECK second"]
    assert stdin(plugins, "CHECK-first")["prevResult"]["by"] == "second"


def test_real_plugins_attach_and_detach(make_lab):
    """The bridge and host-local plugins make a pod's eth0; DEL frees its veth and address."""
    lab = make_lab(nodes=1, pods_per_node=1, kernel_only=1)
    pod = lab.pod("node1-pod1")
    assert f"{pod.veth}@" in lab.exec("node1", "ip", "-br", "link", "show", "master", "cni0").stdout
    lab.lab.remove_pod(pod)
    assert not lab.exec("node1", "ip", "-br", "link", "show", "master", "cni0").stdout
    networks = lab.node("node1").directory / "cni" / "networks" / "cbr0"
    assert not list(networks.glob("10.42.1.*"))
