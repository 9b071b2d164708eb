# SPDX-License-Identifier: Apache-2.0
"""A node without containers: the Debian package and its units, a boot, a loss of power, the end."""

from __future__ import annotations

import hashlib
import json
import re
import shlex

import pytest
from bootnode import ROOT, BootNode, build
from test_commands import check

from vxlane.datapath.abi import Program
from vxlane.lab.waiting import wait_for

BRIDGE = {
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.42.1.0/24"}]]},
}
FLANNEL = {"cniVersion": "0.4.0", "name": "cbr0", "plugins": [BRIDGE]}
NODES = """\
network: 10.42.0.0/16
nodes:
  - {name: node1, address: 192.168.77.1, podCIDR: 10.42.1.0/24}
  - {name: node2, address: 192.168.77.2, podCIDR: 10.42.2.0/24}
"""
OPTIONS = "--nodes-file /etc/vxlane/nodes.yaml --node-name node1 --ip-masq"
POD = """
import sys
from pathlib import Path
from vxlane.runtime import network
from vxlane.runtime.chain import Chain, ContainerInterface
listed = network.in_force(Path("/etc/cni/net.d"), "cbr0", drop_ins=False)
path = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
chain = Chain(listed, namespace=None, path=path, cache=Path("/var/lib/cni"))
getattr(chain, sys.argv[1])(ContainerInterface(sys.argv[2], Path("/run/netns") / sys.argv[2]))
"""
UNITS = ("vxlane.service", "run-vxlane-bpf.mount")
DEFAULT = ROOT / "deploy/systemd/vxlane.default"
SYSTEMCTL = """\
#!/bin/sh
case "$*" in
"--no-block try-restart "*) echo "$3" >>/run/restarts ;;
*restart*) echo "Job for vxlane.service failed." >&2; exit 1 ;;
esac
"""
"""Of a systemd whose agent does not start: only who waits for that hears of it."""
PYTHON = "/usr/lib/vxlane/bin/python3"
NOTHING = {part: set() for part in ("files", "net", "rules", "settings", "mounts", "run")}
OTHERS = ("var/lib/dpkg/", "var/log/", "var/cache/", "var/lib/cni/networks/")
"""Where dpkg and host-local take their notes."""
BOTH = {Program.FROM_POD, Program.TO_POD}
OBJECTS = (("-d", "link"), ("addr",), ("route", "show", "table", "all"), ("rule",))
UNSTEADY = r'"(\w+_life_time|ifindex|link_index|ssthresh|hello_timer|gc_timer)": [\d.]+'
RULES = """\
iptables-save | grep -v '^#' | sed 's/ \\[.*//'
nft -s list ruleset | grep -v '^#'
tc qdisc
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The package."""
    return build(tmp_path_factory.mktemp("package"))


@pytest.fixture
def node(_machine, package):
    """A node that has booted, on which a pod was made and deleted, and the package's file is."""
    node = BootNode()
    node.boot()
    for directory in ("/etc/cni/net.d", "/opt/cni/bin"):
        node.seen(directory).mkdir(parents=True)
    write_flannels(node)
    node.seen("/var/cache/vxlane.deb").write_bytes(package.read_bytes())
    yield node
    node.remove()


def write_flannels(node, **keys):
    """As flanneld's init container and k3s do at each start."""
    file = node.seen("/etc/cni/net.d/10-flannel.conflist")
    file.write_text(json.dumps({**FLANNEL, **keys}), encoding="utf-8")


def make_pod(node, name):
    """A pod by the list that is in force; its veth."""
    before = veths(node)
    node.run("ip", "netns", "add", name)
    node.run(PYTHON, "-c", POD, "add", name)
    (veth,) = veths(node) - before
    return veth


def remove_pod(node, name):
    """Its end."""
    node.run(PYTHON, "-c", POD, "delete", name)
    node.run("ip", "netns", "del", name)


def veths(node):
    """The host ends of pods."""
    return {link["ifname"] for link in json.loads(node.run("ip", "-j", "link"))} - {
        *("lo", "eth0", "wire0", "cni0", "flannel.1")
    }


def programs_on(node, device):
    """What stands on a device."""
    return {program for program, name in node.programs() if name == device}


def install(node):
    """The package with options for a node in flanneld's place, its units started, the plugin."""
    node.run("dpkg", "--install", "/var/cache/vxlane.deb")
    node.seen("/etc/vxlane").mkdir()
    node.seen("/etc/vxlane/nodes.yaml").write_text(NODES)
    node.seen("/etc/default/vxlane").write_text(f'VXLANE_OPTIONS="{OPTIONS}"\n')
    start(node)
    node.run("vxlane", "install", "--form", "conflist")


def start(node):
    """As systemd does at a boot."""
    node.mount("run-vxlane-bpf.mount")
    node.start("vxlane.service")


def test_a_node_comes_back_after_a_loss_of_power(node):
    """Without /run, devices and programs the units bring back network, bypass, pods and plugin,
    and that although the directories of CNI are another user's.
    """
    install(node)
    for directory in ("/etc/cni/net.d", "/opt/cni/bin"):  # As Kubespray's user kube.
        node.run("chown", "-R", "1000:0", directory)
    before = make_pod(node, "first")
    assert programs_on(node, before) == BOTH
    node.lose_power()
    node.boot()
    assert node.programs() == set()
    start(node)
    wait_for(lambda: node.status()["bypass"] == "on", "the bypass", seconds=20)
    status = node.status()
    assert (status["ready"], status["failures"]) == (True, [])
    assert status["pods"] == 0  # The runtime's file of the old pod is still there.
    node.run(PYTHON, "-c", POD, "delete", "first")  # Runtimes end what has not survived.
    veth = make_pod(node, "second")
    assert programs_on(node, veth) == BOTH
    assert json.loads(node.run("vxlane", "status", "--json"))["programs"]["pods"] == 1
    write_flannels(node, plugins=[BRIDGE, {"type": "tuning"}])
    ours = node.seen("/etc/cni/net.d/00-vxlane.conflist")
    wanted = ["bridge", "tuning", "vxlane"]
    wait_for(lambda: kinds(ours) == wanted, "the plugin in the list that was written anew")
    ours.unlink()
    wait_for(lambda: kinds(ours) == wanted, "the list that somebody removed")
    pins = node.run("ls", "/run/vxlane/bpf")
    node.stop()
    assert programs_on(node, veth) == BOTH
    node.start("vxlane.service")
    assert node.run("ls", "/run/vxlane/bpf") == pins
    assert "over as compiled" in node.log().rpartition("stopped")[2]
    remove_pod(node, "second")
    remove_package(node)


def remove_package(node):
    """It takes bypass and plugin off and ends the agent; the network of the pods stays."""
    node.run("dpkg", "--remove", "vxlane")
    assert node.programs() == set()
    assert node.run("ls", "-A", "/etc/cni/net.d").split() == ["10-flannel.conflist"]
    assert "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink" in node.run("ip", "route")
    assert node.agent.wait(timeout=10) == 0
    node.agent = None


def kinds(file):
    """The plugins of a list; none: it is not there, or not whole yet."""
    try:
        return [plugin["type"] for plugin in json.loads(file.read_text())["plugins"]]
    except (OSError, ValueError):
        return []


def test_nothing_is_left(node):
    """After uninstall, detach and purge, files, devices, addresses, routes, rules, qdiscs,
    settings, programs, mounts and /run are those of a node that never had vxlane.
    """
    node.run("dpkg", "--install", "/var/cache/vxlane.deb")  # For its Python.
    make_pod(node, "before")
    remove_pod(node, "before")
    for chain in ("FORWARD", "POSTROUTING -t nat"):  # iptables makes chains, and leaves them.
        node.sh(*(f"iptables -{do} {chain} -j ACCEPT" for do in "AD"))
    node.run("mkdir", "/run/mount")  # So does mount(8).
    node.run("dpkg", "--purge", "vxlane")
    # The kernel tells of a bridge without a port within a second.
    wait_for(lambda: "linkdown" in node.run("ip", "route", "show", "dev", "cni0"), "no carrier")
    untouched = everything(node)
    install(node)
    make_pod(node, "pod")
    node.run("vxlane", "stats")
    remove_pod(node, "pod")
    touched = everything(node)
    assert all(touched[part] - untouched[part] for part in NOTHING)
    node.stop()
    node.run("vxlane", "uninstall")
    said = node.run("vxlane", "detach", "--network")
    node.run("dpkg", "--purge", "vxlane")
    node.seen("/etc/vxlane/nodes.yaml").unlink()
    node.seen("/etc/vxlane").rmdir()
    for setting in re.findall(r"sysctl -w (\S+)", said):
        node.run("sysctl", "-w", setting)
    after = everything(node)
    assert {part: after[part] ^ untouched[part] for part in after} == NOTHING
    assert node.programs() == set()


def everything(node):
    """Whatever vxlane could change on a node, as sets of lines."""
    objects = [one for kind in OBJECTS for one in json.loads(node.run("ip", "-j", *kind))]
    settings = node.sh("sysctl -a 2>/dev/null").splitlines()
    mounts = node.run("cat", "/proc/mounts").splitlines()
    return {
        "files": files_below(node.upper()),
        "net": {re.sub(UNSTEADY, "", json.dumps(one)) for one in objects},
        "rules": set(node.sh(RULES).splitlines()),
        "settings": {line for line in settings if re.match(r"net\.(?!.*conntrack_count)", line)},
        "mounts": {line.split()[1] for line in mounts},
        "run": set(node.run("find", "/run").split()),
    }


def files_below(directory):
    """Path, mode and digest of each file that was changed, but for what others write."""
    found = set()
    for file in directory.rglob("*"):
        name = str(file.relative_to(directory))
        if name.startswith(OTHERS) or is_interpreters_cache(file, name):
            continue
        digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
        found.add((name, file.lstat().st_mode, digest))
    return found


def is_interpreters_cache(file, name):
    """Debian's Python compiles modules of its own as it meets them; an overlay copies the
    directories above what is written.
    """
    if not re.match(r"usr/lib/python3\.\d+(/|$)", name):
        return False
    return "__pycache__" in file.parts or file.is_dir()


def test_the_package(node):
    """Its dependencies are on Debian, its units are what systemd reads, and nothing starts."""
    node.run("dpkg", "--install", "/var/cache/vxlane.deb")
    assert node.run("vxlane", "--version").startswith("vxlane ")
    units = [f"/usr/lib/systemd/system/{name}" for name in UNITS]
    assert node.run("systemd-analyze", "verify", "--man=no", *units) == ""
    assert node.run("dpkg", "--verify", "vxlane") == ""
    node.run("vxlane", "status", "--help")
    node.run("dpkg", "--purge", "vxlane")
    assert not node.seen("/usr/lib/vxlane").exists()


def test_an_upgrade_waits_for_no_agent(node):
    """It may wait for its source of nodes as long as that is away, or be refused its options: dpkg
    goes on all the same.
    """
    node.sh(
        "mkdir -p /run/systemd/system",
        f"echo '{SYSTEMCTL}' >/usr/local/bin/systemctl",
        "chmod +x /usr/local/bin/systemctl",
    )
    for _ in range(2):
        node.run("dpkg", "--install", "/var/cache/vxlane.deb")
    assert node.run("cat", "/run/restarts").split() == ["vxlane.service", "vxlane.service"]


@pytest.mark.parametrize("line", re.findall('(?m)^#?VXLANE_OPTIONS="(.*)"', DEFAULT.read_text()))
def test_the_options_are_vxlanes(line):
    """Each line of the file of options is one that the agent reads."""
    check(["agent", *shlex.split(line)])
