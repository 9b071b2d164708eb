# SPDX-License-Identifier: Apache-2.0
"""`vxlane bench --between` on two nodes of a lab, and what it decides."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import socket
import subprocess
import threading
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from vxlane.bench import live, live_paths, live_works, plan, talk
from vxlane.bench.live_paths import Reading
from vxlane.bench.model import Missing
from vxlane.bench.plan import Depth
from vxlane.bench.run import Wanted
from vxlane.bench.works import asked_values
from vxlane.cli.bench import bench
from vxlane.errors import ConfigError
from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for

BEFORE = Reading(sent=100, tunnelled=50, passed_in=10, passed_there=5)


def after(**moved):
    """A later reading: how far each counter has moved."""
    return Reading(
        **{name: getattr(BEFORE, name) + moved.get(name, 0) for name in BEFORE.__slots__}
    )


@pytest.mark.parametrize(
    ("path", "is_long", "moved", "said"),
    [
        (plan.KERNEL, True, {"sent": 100, "passed_there": 100}, ""),
        (plan.KERNEL, False, {"sent": 100}, "no packet came in by the kernel path of the other"),
        (plan.BYPASS, True, {"sent": 1000, "tunnelled": 970, "passed_in": 30}, ""),
        (plan.BYPASS, True, {"sent": 1000, "tunnelled": 969}, "31 packets did not leave by the"),
        (plan.BYPASS, True, {"sent": 9, "tunnelled": 9, "passed_in": 21}, "path of this node"),
        (plan.BYPASS, True, {"sent": 9, "tunnelled": 9, "passed_there": 21}, "of the other node"),
        (plan.BYPASS, False, {"sent": 1000, "tunnelled": 1}, ""),
    ],
)
def test_the_wrong_path_is_a_complaint(path, is_long, moved, said):
    """Of a long work all but 1 % and a few are bypassed at both nodes; the kernel path is seen."""
    found = live_paths.complaint(path, BEFORE, after(**moved), is_long=is_long)
    assert said in found
    assert bool(found) == bool(said)


@pytest.mark.parametrize(("here", "there"), [(None, True), ("/usr/bin/iperf3", False)])
def test_tcp_needs_iperf3_at_both_ends(monkeypatch, here, there):
    """Without it, what remains is measured, and the document says what was not and where."""
    monkeypatch.setattr(live.shutil, "which", lambda _: here)
    cells, missing = live._cells(Wanted(Depth.QUICK, 5, 1.0), has_iperf3=there)
    where = "at the far end" if here else "here"
    assert missing == [Missing(plan.TCP1, f"iperf3 is not installed {where}")]
    assert [cell.work for cell in cells] == [plan.UDP64, plan.TCP_RR, plan.CRR]
    with pytest.raises(ConfigError, match=f"TCP, 1 flow: iperf3 is not installed {where}"):
        live._cells(Wanted(Depth.QUICK, 5, 1.0, works=["tcp, 1"]), has_iperf3=there)


def test_throughput_by_another_congestion_control():
    """The client's command line has it."""
    said = []

    def run(*argv):
        said.append(argv)
        return '{"end": {"sum_received": {"bytes": 1, "bits_per_second": 8e9}}}', ""

    pair = SimpleNamespace(address="10.42.2.9", seconds=0.4, congestion="reno", run=run)
    assert live_works.take(plan.TCP1, pair).values == {"throughput": 8.0}
    assert said[0][-2:] == ("--congestion", "reno")


def test_no_figure_is_of_one_nodes_cpu():
    """Each work can run and has a figure, and none is CPU time: the far end's is not known."""
    for cell in plan.live_cells(Depth.FULL):
        assert cell.work in live_works._RUN
        names = [f"{figure.name} {figure.unit}" for figure in live_works.figures(cell.work)]
        assert names
        assert not [name for name in names if "CPU" in name or "softirq" in name]
    poured = ["rate", "lost on the way", "dropped at the socket"]
    assert [figure.name for figure in live_works.figures(plan.UDP64)] == poured
    assert [figure.name for figure in live_works.figures(plan.CRR)] == ["rate", "p50", "p99"]


@pytest.mark.usefixtures("_machine")
def test_lost_answers_are_shown(tmp_path):
    """Of few lost answers no percentile tells, and the rate does."""
    built = talk.build(tmp_path)
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        answering = threading.Thread(target=_answer_most, args=[server])
        answering.start()
        try:
            command = [built, "udp", "127.0.0.1", str(server.getsockname()[1]), "2.5"]
            count, *times = talk.parse(subprocess.check_output(command, text=True))
        finally:
            server.sendto(b"", server.getsockname())
            answering.join()
    values = asked_values(count, times, 2.5)
    shown = {figure.name for figure in live_works.figures(plan.UDP_RR)}
    assert values["p99"] < 5_000  # us
    assert values["rate"] < 1 / (values["p50"] / 1e3) / 2
    assert "rate" in shown


def _answer_most(server):
    """All but each thousandth, until an empty datagram comes."""
    for number in itertools.count():
        data, sender = server.recvfrom(2048)
        if not data:
            return
        if number % 1000 != 999:
            server.sendto(data, sender)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--between", "node2"], "'node2' is not an IPv4 address"),
        (["--between", "10.42.2.9", "--serve"], "give one of --serve, --between and --stock"),
        (["--serve", "--json", "x"], "--json means nothing with --serve; leave it out"),
        (["--serve", "--rounds", "9"], "--rounds means nothing with --serve; leave it out"),
        (["--between", "10.42.2.9", "--name", "a"], "--name means nothing with --between"),
    ],
)
def test_wrong_use_is_status_2(arguments, said):
    """Arguments that can't be read or contradict each other are refused before anything else."""
    done = CliRunner().invoke(bench, arguments)
    assert (done.exit_code, said in done.output) == (2, True)


def command(lab, node, *arguments):
    """`vxlane bench` as `vxlane lab exec` runs it on a node."""
    return [program("vxlane"), "lab", "exec", lab.netns(node), "--", "vxlane", "bench", *arguments]


@contextlib.contextmanager
def serving(lab):
    """`vxlane bench --serve` on node2 beside the block: its process, and the address it tells."""
    with subprocess.Popen(
        command(lab, "node2", "--serve"), stdout=subprocess.PIPE, text=True
    ) as it:
        try:
            yield it, it.stdout.readline().split()[0]
        finally:
            it.kill()


def test_both_paths_of_live_nodes_are_measured(lab, tmp_path):
    """Each work has a value of each path, whose packets went that way; nothing is left of it.

    The pods of a run that was killed, and its traffic, go with the next one.
    """
    file = tmp_path / "run.json"
    with serving(lab) as (server, address):
        between = command(lab, "node1", "--between", address, "--rounds", "1")
        long = [*between, "--seconds", "60", "--work", "TCP request"]
        with subprocess.Popen(long, stderr=subprocess.PIPE, text=True) as killed:
            wait_for(lambda: "round 1" in killed.stderr.readline(), "the first round")
            killed.kill()
        quick = [*between, "--seconds", "0.2", "--quick", "--json", str(file)]
        done = subprocess.run(quick, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0
    assert not any((lab.node(node).directory / "probes").exists() for node in ("node1", "node2"))
    rows = json.loads(file.read_text())["rows"]
    assert {row["work"] for row in rows} == {plan.TCP1, plan.UDP64, plan.TCP_RR, plan.CRR}
    for row in rows:
        assert set(row["paths"]) == {plan.KERNEL, plan.BYPASS}
        assert all(None not in path["rounds"] for path in row["paths"].values()), row
