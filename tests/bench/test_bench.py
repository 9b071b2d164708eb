# SPDX-License-Identifier: Apache-2.0
"""The bench as a whole: labs of its own, ends that are given, and the files that it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import benchdocument
import pytest
from click.testing import CliRunner

from vxlane.bench import environment, grounds, parity, plan, programs, talk, tracked, works
from vxlane.bench.ends import in_namespaces
from vxlane.bench.model import Placement
from vxlane.bench.plan import Depth
from vxlane.bench.programs import BYPASSED
from vxlane.bench.rounds import Rounds
from vxlane.bench.run import Wanted, run
from vxlane.bench.setting import Setting, new_port
from vxlane.bench.works import WORKS, bulk_client, received_of
from vxlane.cli.bench import bench
from vxlane.errors import LabError, OptionError
from vxlane.lab import lab as labs
from vxlane.lab import namespaces, traffic
from vxlane.lab.agents import program
from vxlane.lab.figure import Better
from vxlane.lab.waiting import wait_for

NAME = f"vxtest-{os.getpid()}-bench"
ENCAP_WORKS = (plan.UDP64, plan.TCP1)


@pytest.fixture(scope="module")
def found(_machine):
    """What a run of one short round in labs of its own found."""
    wanted = Wanted(Depth.QUICK, rounds=1, seconds=0.1, works=["connect", "udp"], name=NAME)
    return run(wanted, lambda _: None)


def test_every_path_is_measured(found):
    """Each path has a value, its packets went its own way, and no lab is left."""
    assert [said for said in found["failures"] if "x of stock" not in said] == []
    rows = {(row["place"], row["work"], row["figure"]): row for row in found["rows"]}
    rate = rows["between nodes", plan.UDP64, "rate"]
    assert set(rate["paths"]) == {"host", "stock", "device", "bypass"}
    assert all(None not in path["rounds"] for path in rate["paths"].values())
    assert set(rate["ratios"]) == {"host", "stock", "device"}
    assert ("through a ClusterIP", plan.CRR, "rate") in rows
    assert [name for name in namespaces.existing() if name.startswith(NAME)] == []


@pytest.mark.usefixtures("_machine")
def test_two_runs_of_one_name(monkeypatch):
    """The second makes no lab in place of the first one's. When a run was killed, the next one of
    its name removes what is left, on whichever path, and no lab of another name.
    """
    left, other = (
        labs.up(f"{NAME}-{path}", nodes=1, pods_per_node=0, kernel_only=1).nodes[0].name
        for path in ("encap", "mine")
    )
    wanted = Wanted(Depth.QUICK, rounds=1, seconds=0.1, works=["request"], name=NAME)
    monkeypatch.setattr("vxlane.bench.run._in_labs", lambda *_: pytest.fail("labs would be made"))
    try:
        with labs.held(NAME), pytest.raises(LabError, match="another command has labs of the name"):
            run(wanted, lambda _: None)
        assert left in namespaces.existing()
        with pytest.raises(pytest.fail.Exception):
            run(wanted, lambda _: None)
        assert left not in namespaces.existing()
        assert other in namespaces.existing()
    finally:
        labs.down(f"{NAME}-mine")


def test_a_name_has_room_for_those_of_all_labs(monkeypatch):
    """A name with which the last lab of a run could not be made is refused before the first one."""
    monkeypatch.setattr("vxlane.bench.run._in_labs", lambda *_: pytest.fail("labs would be made"))
    wanted = Wanted(Depth.QUICK, rounds=1, seconds=0.1, name="a" * 21)
    with pytest.raises(OptionError, match="give up to 31 lower-case letters"):
        run(wanted, lambda _: None)


def test_programs_have_a_cost(found):
    """Programs of both paths ran and were counted."""
    costs = {(cost["path"], cost["program"], cost["how"]): cost["ns"] for cost in found["programs"]}
    for place in (("bypass", "from_pod"), ("bypass", "from_nic"), ("device", "from_tunnel")):
        for how in ("run statistics", "test run"):
            assert 0 < costs[(*place, how)] < 100_000
    packets = {(one["program"], one["packets"]) for one in found["programs"]}
    assert {("from_pod", BYPASSED), ("from_nic", BYPASSED)} <= packets


@pytest.mark.usefixtures("_machine")
def test_programs_that_write_the_headers(tmp_path):
    """On the path encap its own programs take single datagrams off the NIC, and leave to the vxlan
    device what is merged.
    """
    cells = [plan.Cell(plan.BETWEEN, work, Placement.ONE, ("encap",)) for work in ENCAP_WORKS]
    made = grounds.Labs(NAME, lambda _: None)
    try:
        assert made.make(cells) == []
        cpus = sorted(os.sched_getaffinity(0))
        rounds = Rounds(made, 1, 0.1, cpus, talk.build(tmp_path), lambda _: None)
        findings = rounds.hold(cells)
        pinned = programs.of_others(made.labs["encap", 0], "encap")
        setting = rounds.setting("encap", plan.BETWEEN, Placement.ONE)
        runs = {work: programs.costs_of(pinned, work, setting) for work in ENCAP_WORKS}
    finally:
        made.down()
    assert findings.failures == []
    assert set(runs[plan.UDP64]) == {"from_pod", "from_nic"}
    assert set(runs[plan.TCP1]) == {"from_pod", "from_nic", "from_tunnel"}


def ends_of(lab, client, server):
    """CLIENT,SERVER,ADDRESS of two pods."""
    return f"{lab.netns(client)},{lab.netns(server)},{lab.address(server)}"


def test_ends_that_are_given(lab, tmp_path):
    """Two namespaces of each path are measured as they are, and two runs can be compared."""
    files = {kind: str(tmp_path / f"run.{kind}") for kind in ("json", "html")}
    argv = [program("vxlane"), "bench", "--quick", "--rounds", "1", "--seconds", "0.1"]
    argv += ["--work", "TCP request", "--work", plan.TCP1, "--congestion", "reno"]
    argv += ["--stock", ends_of(lab, "node3-pod1", "node3-pod2")]
    argv += ["--bypass", ends_of(lab, "node1-pod1", "node2-pod1")]
    argv += ["--json", files["json"], "--html", files["html"]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "run.json").read_text())
    assert {row["place"] for row in document["rows"]} == {"between the given ends"}
    assert document["rows"][0]["ratios"]["stock"]["verdict"] == "too few rounds"
    bulk, asked = (
        next(lines for what, lines in document["commands"].items() if work in what)
        for work in (plan.TCP1, plan.TCP_RR)
    )
    assert "talk serve" in asked[0]
    assert "talk tcp" in asked[1]
    assert bulk[1].endswith("--congestion reno")
    assert "TCP throughput reno" in document["environment"]["TCP congestion control"]
    assert document["environment"]["idle CPUs"].startswith("governor ")
    assert (tmp_path / "run.html").read_text().startswith("<!doctype html>")
    compared = [program("vxlane"), "bench", "compare", files["json"], files["json"]]
    done = subprocess.run(compared, capture_output=True, text=True, check=True)
    assert "no result in one of them" in done.stdout


@pytest.mark.parametrize("name", [plan.TCP1_CUT, plan.UDP_RR, plan.SLOW, plan.FIXED, plan.FLOODED])
def test_works(lab, tmp_path, name):
    """A work has a value for each of its figures, and tells its two command lines."""
    beside = in_namespaces(*ends_of(lab, "node1-pod2", "node2-pod2").split(","))
    client, server, address = ends_of(lab, "node1-pod1", "node2-pod1").split(",")
    cpus = (min(os.sched_getaffinity(0)),) * 2
    setting = Setting(
        in_namespaces(client, server, address), cpus, 0.2, talk.build(tmp_path), beside
    )
    taken = WORKS[name].run(setting)
    for figure in WORKS[name].figures:
        value = taken.values[figure.name]
        # The kernel counts CPU time in ticks of 10 ms: of so short a time it may have none.
        may_be_none = figure.better is Better.NEITHER or figure.name.startswith(("CPU", "softirq"))
        assert value >= 0 if may_be_none else value > 0
    assert [line.split()[1] for line in taken.commands] == [
        f"--net=/run/netns/{namespace}" for namespace in (server, client)
    ]


@pytest.mark.parametrize("floods", [True, False])
def test_a_flood_lasts_as_long_as_its_requests(lab, tmp_path, monkeypatch, floods):
    """Requests that begin late are beside it to their end; without a flood there is no value."""
    client, server, address = ends_of(lab, "node1-pod1", "node2-pod1").split(",")
    beside = in_namespaces(*ends_of(lab, "node1-pod2", "node2-pod2").split(","))
    ends = in_namespaces(client, server, address)
    setting = Setting(ends, None, 0.1, talk.build(tmp_path), beside)

    def asked(_what):
        def late(setting):
            time.sleep(setting.seconds + 0.4)
            before = beside.target.arrived()
            time.sleep(0.2)
            return beside.target.arrived() - before

        return late

    monkeypatch.setattr(works, "_asked", asked)
    if floods:
        assert WORKS[plan.FLOODED].run(setting) > 100
        return
    monkeypatch.setattr(works, "_pour", lambda *_: ["no such work"])
    with pytest.raises(LabError, match="the flood ended before the requests"):
        WORKS[plan.FLOODED].run(setting)


def test_connections_go_to_ports_in_turn(make_netns, tmp_path):
    """A client that connects anew calls each port as often as the others: it runs out of none."""
    netns, program = make_netns("talk"), str(talk.build(tmp_path))
    namespaces.run(None, "ip", "-n", netns, "link", "set", "lo", "up")
    with traffic.serving(netns, 9003, program, "serve", "9000", "4"):
        said = namespaces.run(netns, program, "connect", "127.0.0.1", "9000", "0.05", "4").stdout
    waiting = namespaces.run(netns, "ss", "-Htn", "state", "time-wait").stdout
    calls = Counter(line.split()[-1].rpartition(":")[2] for line in waiting.splitlines())
    assert set(calls) == {"9000", "9001", "9002", "9003"}
    assert max(calls.values()) - min(calls.values()) <= 1
    assert sum(calls.values()) == int(said.split()[0])


KILLED = """
import os, sys
from vxlane.bench.ends import Namespace
with Namespace(sys.argv[1]).serving(9000, [sys.argv[2], "serve", "9000"]):
    print("it listens", flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_killed_run_leaves_no_server(make_netns, tmp_path):
    """What serves in a namespace that somebody gave ends with the bench, also by kill -9."""
    netns, program = make_netns("killed"), str(talk.build(tmp_path))
    argv = [sys.executable, "-c", KILLED, netns, program]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout == "it listens\n"
    wait_for(lambda: not namespaces.pids(netns), "the server's end")


@pytest.mark.parametrize("path", ["host", "stock"])
def test_a_lab_of_the_bench_has_nodes_of_its_own(lab, path):
    """They are those whose connections are forgotten. Ends that somebody gives have none."""
    made = grounds.Labs(NAME, print)
    made.labs["stock", 0] = lab.lab
    nodes = [node.name for node in lab.lab.nodes]
    assert set(made.stand(path, plan.BETWEEN).nodes) == set(nodes[:2] if path == "host" else nodes)
    assert stand_of(lab, "node1-pod1", "node2-pod1").nodes == ()


def test_no_measurement_meets_entries_of_another(lab, tmp_path):
    """Before each one conntrack's tables of the lab's nodes are empty."""
    stand = replace(stand_of(lab, "node1-pod1", "node2-pod1"), nodes=(lab.netns("node1"),))
    ground = SimpleNamespace(stand=lambda *_: stand)
    held = Rounds(ground, 1, 0.1, (0, 0), talk.build(tmp_path), lambda _: None)

    def entries():
        return int(lab.exec("node1", "conntrack", "-C").stdout)

    lab.exec("node1-pod1", "ping", "-qc1", lab.address("node2-pod1"))
    assert entries()
    tracked.forget(stand.nodes)
    assert entries() < 5  # The lab is others' too.
    held.hold([plan.Cell(plan.GIVEN, plan.CRR, Placement.ONE, ("stock",))])
    many = entries()
    held.hold([plan.Cell(plan.GIVEN, plan.UDP_RR, Placement.ONE, ("stock",))])
    assert entries() < 50 < many


def test_throughput_by_each_congestion_control(lab):
    """iperf3 tells what its connections were sent by: of all that there are the one asked for."""
    ends = in_namespaces(*ends_of(lab, "node1-pod1", "node2-pod1").split(","))
    port = str(new_port())
    for name in Path(environment.AVAILABLE).read_text(encoding="ascii").split():
        with ends.target.serving(int(port), ["iperf3", "--server", "--port", port]):
            said = ends.source.run(*bulk_client(ends.address, port, 1, 1.0, name)).stdout
        assert json.loads(said)["end"]["sender_tcp_congestion"] == name
        assert received_of(said)["bytes"] > 0


def stand_of(lab, client, server):
    """Two pods as ends that are given."""
    ends = in_namespaces(*ends_of(lab, client, server).split(","))
    return grounds.Given({"stock": ends}).stand("stock", plan.GIVEN)


def test_parity_finds_a_smaller_mtu(lab):
    """A path that does not carry packets of the pods' MTU is not measured."""
    stand = stand_of(lab, "node3-pod1", "node3-pod2")
    assert parity.complaint(stand) == ""
    lab.exec("node3-pod2", "ip", "link", "set", "eth0", "mtu", "1400")
    try:
        assert parity.complaint(stand) == "0 of 10 pings of 1450 bytes came back"
    finally:
        lab.exec("node3-pod2", "ip", "link", "set", "eth0", "mtu", "1450")


def test_parity_finds_fragments(lab):
    """While packets are cut at an end of a path, it is not measured."""
    stand = stand_of(lab, "node3-pod1", "node3-pod2")
    cut = ["ping", "-q", "-M", "dont", "-s", "3000", "-c", "500", "-i", "0.002", stand.ping]
    with subprocess.Popen(stand.ends.source.inside(cut), stdout=subprocess.DEVNULL) as pinging:
        try:
            said = wait_for(lambda: parity.complaint(stand), "a complaint")
        finally:
            pinging.kill()
    assert "fragments were made or came while 10 pings of 1450 bytes went" in said


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--bypass", "a,b,10.0.0.1"], 2, "give both"),
        (["--rounds", "0"], 2, "--rounds"),
        (["--seconds", "0"], 2, "--seconds"),
        (["--quick", "--full"], 2, "give --quick or --full, not both"),
        (["--work", ""], 2, "give a word of a workload's name"),
        (["--stock", ""], 2, "it is empty; give a value, or leave the option out"),
        (["--bypass", ""], 2, "it is empty"),
        (["--congestion", ""], 2, "it is empty"),
        (["--network-name", "a"], 2, "--network-name means nothing for labs"),
    ],
)
def test_wrong_use_is_refused(options, status, words):
    """Options that don't fit are named, before anything is made."""
    done = CliRunner().invoke(bench, options)
    assert done.exit_code == status
    assert words in done.output


@pytest.mark.parametrize(("failures", "status"), [([], 0), (["it is slower"], 1)])
def test_a_failure_is_the_exit_status(tmp_path, monkeypatch, failures, status):
    """A run that failed ends with 1, and its files are written all the same."""
    document = benchdocument.run(failures=failures)
    monkeypatch.setattr("vxlane.cli.bench.run", lambda *_: document)
    monkeypatch.setattr("vxlane.cli.bench.need_root", lambda: None)
    monkeypatch.setattr("vxlane.util.interrupt.catch", lambda: None)
    files = ["--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    done = CliRunner().invoke(bench, files)
    assert done.exit_code == status
    assert json.loads((tmp_path / "a.json").read_text()) == document
    assert "it is slower" in (tmp_path / "a.html").read_text() or not failures


@pytest.mark.parametrize("name", ["no_such", "bbr7"])
def test_a_congestion_control_that_is_not_there(monkeypatch, name):
    """What the kernel lacks is told before anything is made, with what it has."""
    monkeypatch.setattr("vxlane.cli.bench.need_root", lambda: None)
    monkeypatch.setattr("vxlane.util.interrupt.catch", lambda: None)
    monkeypatch.setattr("vxlane.cli.bench.run", lambda *_: pytest.fail("it was measured"))
    done = CliRunner().invoke(bench, ["--congestion", name])
    assert f'no congestion control "{name}"; it has reno' in str(done.exception)
    assert done.exception.__class__ is OptionError


@pytest.mark.parametrize("place", ["none/a.json", "/proc/a.json"])
def test_a_file_without_a_place_is_refused(tmp_path, monkeypatch, place):
    """A run of a quarter of an hour does not end with a file that can't be written."""
    monkeypatch.setattr("vxlane.cli.bench.need_root", lambda: None)
    monkeypatch.setattr("vxlane.util.interrupt.catch", lambda: None)
    monkeypatch.setattr("vxlane.cli.bench.run", lambda *_: pytest.fail("it was measured"))
    done = CliRunner().invoke(bench, ["--json", str(tmp_path / place)])
    assert "can't write" in str(done.exception)
    assert done.exception.__class__ is OptionError


def test_standard_output_has_one_document(tmp_path, monkeypatch):
    """`--json -` prints the document and no table, and makes no file of that name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vxlane.cli.bench.need_root", lambda: None)
    monkeypatch.setattr("vxlane.util.interrupt.catch", lambda: None)
    document = benchdocument.run(failures=["it is slower"])
    monkeypatch.setattr("vxlane.cli.bench.run", lambda *_: document)
    done = CliRunner().invoke(bench, ["--json", "-"])
    assert json.loads(done.stdout) == document
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fills_the_disk_costs_no_other(tmp_path, monkeypatch):
    """What can't be written at the end is named, and the other file is whole."""
    monkeypatch.setattr("vxlane.cli.bench.need_root", lambda: None)
    monkeypatch.setattr("vxlane.util.interrupt.catch", lambda: None)
    monkeypatch.setattr("vxlane.cli.bench.run", lambda *_: benchdocument.run())
    other = tmp_path / "other"
    for full, whole in (("--json", "--html"), ("--html", "--json")):
        done = CliRunner().invoke(bench, [full, "/dev/full", whole, str(other)])
        assert str(done.exception) == "can't write /dev/full: No space left on device"
        assert other.stat().st_size
        other.unlink()
