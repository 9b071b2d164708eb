# SPDX-License-Identifier: Apache-2.0
"""Ends on hosts: real traffic by a stand-in of ssh that enters a pod, and what hosts may lack."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from vxlane.bench import environment, given, hosts, plan, talk
from vxlane.bench.cpu import CpuTime, Spent
from vxlane.bench.ends import Ends, Namespace, in_namespaces
from vxlane.bench.given import Names
from vxlane.bench.hosts import Host
from vxlane.bench.model import Placement
from vxlane.bench.plan import Depth
from vxlane.bench.run import Wanted, run
from vxlane.bench.works import WORKS, figures
from vxlane.errors import OptionError, ToolError
from vxlane.lab.waiting import wait_for

SSH = """\
#!/bin/sh
# ssh [-o OPTION]... -- HOST COMMAND: runs it in the namespace of that name, as a login shell would.
while [ "$1" != -- ]; do shift; done
echo "$3" >>{log}
[ -e "/run/netns/$2" ] || {{ echo "ssh: no host $2" >&2; exit 255; }}
TMPDIR={there} exec nsenter --net="/run/netns/$2" sh -c "$3"
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A stand-in of ssh is found first. Answers with its hosts' place for temporary files."""
    place, programs = tmp_path / "there", tmp_path / "bin"
    for directory in (place, programs):
        directory.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(SSH.format(there=place, log=tmp_path / "log"))
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return place


def test_ends_on_hosts(lab, there):
    """Hosts carry a run's traffic and keep nothing of it; CPU time is told of each side."""
    pods = [lab.netns(pod) for pod in ("node1-pod1", "node2-pod1")]
    names = Names(*(f"ssh:{pod}" for pod in pods), lab.address("node2-pod1"))
    works = ["tcp, 1 flow", "udp, 64", "tcp request"]
    wanted = Wanted(Depth.QUICK, 1, 0.3, works, {"stock": names})
    found = run(wanted, lambda _: None)
    assert found["failures"] == []
    control = environment.describe([])["TCP congestion control"]
    both = " and ".join(f"ssh:{pod}, Linux {platform.release()}, TCP by {control}" for pod in pods)
    assert found["environment"]["ends of stock"] == both
    medians = {
        (row["work"], row["figure"]): row["paths"]["stock"]["median"] for row in found["rows"]
    }
    assert medians[plan.TCP1, "throughput"] > 0
    assert medians[plan.UDP64, "rate"] > 0
    assert medians[plan.TCP_RR, "p50"] > 0
    assert (plan.TCP1, "CPU per GB, server's side") in medians
    assert {row["placement"] for row in found["rows"]} == {"two nodes"}
    (told,) = [lines for what, lines in found["commands"].items() if plan.UDP64 in what]
    assert [line.split()[0] for line in told] == ["ssh", "ssh"]
    assert nothing_left(there)


def nothing_left(there):
    """Whether neither a file nor a process is left at that place."""
    running = subprocess.run(["pgrep", "-f", str(there)], capture_output=True, check=False)
    return not list(there.iterdir()) and not running.stdout


KILLED = """
import os
from pathlib import Path
from vxlane.bench import hosts
with hosts.reached({name!r}, Path({program!r}), Path({scratch!r})) as host:
    with host.serving(12345, [host.program(Path("talk")), "serve", "12345"]):
        print(host.directory, flush=True)
        os.kill(os.getpid(), 9)
"""


def test_a_host_keeps_nothing_of_a_killed_run(lab, there, tmp_path):
    """What was put there goes with the connection, and servers end with it."""
    name, program = f"ssh:{lab.netns('node1-pod1')}", str(talk.build(tmp_path))
    script = KILLED.format(name=name, program=program, scratch=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(str(there))
    wait_for(lambda: nothing_left(there), "the host is as it was")


def test_a_host_that_is_out_of_reach(there, tmp_path):  # noqa: ARG001 (the stand-in of ssh)
    """What ssh says is told, and how to try it."""
    program = talk.build(tmp_path)
    with pytest.raises(ToolError) as caught, hosts.reached("ssh:me@gone", program, tmp_path):
        pass
    assert str(caught.value) == (
        "ssh:me@gone can't be reached: ssh: no host me@gone; try: ssh me@gone true"
    )


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("s390x 6.1 ping ip iperf3", "is s390x and this machine .* on a machine of its kind"),
        (f"{platform.machine()} 6.1 ip", "ssh:a has no ping; install it there"),
        (f"{platform.machine()} 6.1", "ssh:a has no ping and no ip"),
    ],
)
def test_what_a_host_lacks(said, words):
    """Another architecture, or a missing program that every work needs, is one sentence."""
    with pytest.raises(ToolError, match=words):
        hosts._checked("ssh:a", said.split())


def test_works_that_a_host_can_not_have():
    """Without iperf3 there are the works that don't need it; nothing but talk is put on a host."""
    bare, whole = Host("ssh:a", ()), Host("ssh:b", (), tools=("iperf3",))
    cells = plan.given_cells(Depth.FULL, ["stock"], on_hosts=True)
    assert {cell.placement for cell in cells} == {Placement.NODES}
    kept, missing = given.possible(cells, {"stock": Ends(bare, whole, "10.0.0.2")})
    assert plan.UDP64 in {cell.work for cell in kept}
    whys = {one.what: one.why for one in missing}
    assert set(whys) == {plan.TCP1, plan.TCP8, plan.NGINX, plan.REDIS}
    assert whys[plan.TCP1] == "iperf3 is not installed on ssh:a"
    here = Ends(Namespace("a"), Namespace("b"), "10.0.0.2")
    assert given.possible(cells, {"stock": here}) == (cells, [])


@pytest.mark.parametrize("name", ["ssh:", "ssh:-oProxyCommand=x", "ssh:a b"])
def test_no_name_of_a_host(name, tmp_path):
    """An option for ssh is no host."""
    with pytest.raises(OptionError, match="names no host"), hosts.reached(name, tmp_path, tmp_path):
        pass


@pytest.mark.parametrize("text", ["a,b", "ssh:a,ssh:b,host", "ssh:a,ssh:b,10.0.0.1,c"])
def test_no_ends(text):
    """Two ends and an address are given."""
    with pytest.raises(OptionError, match=r"ssh:\[USER@\]HOST, and an IPv4 address"):
        given.parse(text)


def test_root_is_for_namespaces():
    """Ends that are all on hosts need no root here."""
    all_there = Names("ssh:a", "ssh:b", "10.0.0.1")
    mixed = Names("ssh:a", "b", "10.0.0.1")
    assert Wanted(Depth.QUICK, 1, 1, given={"stock": all_there}).is_elsewhere
    assert not Wanted(Depth.QUICK, 1, 1, given={"stock": all_there, "bypass": mixed}).is_elsewhere
    assert not Wanted(Depth.QUICK, 1, 1).is_elsewhere


def test_cpu_time_of_both_sides():
    """It is the sum that is compared, and each side's is told where they are two machines."""
    work = WORKS[plan.TCP1]
    spent = Spent((CpuTime(3, 1), CpuTime(5, 2))) - Spent((CpuTime(1, 0), CpuTime(1, 0)))
    cpu, softirq = work.figures[1:]
    found = spent.values(cpu, softirq, 10)
    assert found == {
        "CPU per GB": 60,
        "softirq per GB": 30,
        "CPU per GB, client's side": 20,
        "softirq per GB, client's side": 10,
        "CPU per GB, server's side": 40,
        "softirq per GB, server's side": 20,
    }
    a, b = (Host(name, ()) for name in ("ssh:a", "ssh:b"))
    told = figures(work, Placement.NODES, Ends(a, b, ""))
    assert {figure.name for figure in told} == {"throughput", *found}
    assert list(figures(work, Placement.TWO, Ends(a, a, ""))) == list(work.figures)


def test_cpus_that_are_kept_awake_tell_no_cpu_time():
    """All of it would be that of what keeps them awake."""
    told = figures(WORKS[plan.CRR], Placement.AWAKE, in_namespaces("a", "b", ""))
    assert [figure.name for figure in told] == ["rate", "p50", "p99"]
