# SPDX-License-Identifier: Apache-2.0
"""`vxlane profile` on a living node: which side a packet is counted on, and that nothing stays.

No time is asserted: how long a packet took is the machine's business.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import browser
import pytest
from profilefigures import Page
from profilerun import begun, profiling

from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for
from vxlane.profile import tracer
from vxlane.profile.legs import TRACEPOINTS
from vxlane.profile.tracer import Subject

STREAM = Path(__file__).parents[1] / "lab" / "stream.py"
WITH_ONE_MORE = """
from vxlane.profile import legs, tracing
legs.TRACEPOINTS["nosuch"] = "nothing"
text = tracing.program_text()
tracing.program_text = lambda: text + "int at_nosuch(void *context) { return !context; }"
tracing.main()
"""
DATAGRAMS = Path(__file__).with_name("datagrams.py")


def talk(lab, asker, answerer, count=10, size=100):
    """`count` datagrams of `size` bytes and their answers."""
    answer = [sys.executable, str(DATAGRAMS), "answer", str(count)]
    with lab.spawn(answerer, *answer, stdout=-1) as listener:
        assert listener.stdout.readline() == "bound\n"
        ask = [sys.executable, str(DATAGRAMS), "ask", lab.address(answerer), str(count), str(size)]
        lab.exec(asker, *ask)


def packets(document, leg):
    """What was followed on a leg: (bypassed, by the kernel path)."""
    paths = document["latency"][leg]
    return paths["bypass"]["packets"], paths["kernel"]["packets"]


def test_each_packet_is_counted_on_the_side_of_its_path(lab, tmp_path):
    """Bypassed and other packets are as many as the programs' own verdicts, out and in.

    A browser shows the figures of the document.
    """
    page = tmp_path / "profile.html"
    with lab.verdicts("node1") as seen, profiling(lab, "node1", "--html", str(page)) as document:
        talk(lab, "node1-pod1", "node2-pod1")
    bypassed = seen["from_pod", "encapsulated"], seen["from_nic", "decapsulated"]
    assert min(bypassed) >= 8
    assert packets(document, "pod_to_nic") == (bypassed[0], 10 - bypassed[0])
    assert packets(document, "nic_to_udp") == (bypassed[1], 10 - bypassed[1])
    assert document["missing"] == []
    found = document["latency"]["pod_to_nic"]["bypass"]
    assert (found["bytes_per_packet"], found["segments_per_packet"]) == (128.0, 1.0)
    assert found["histogram_bytes"] == [{"from": 128, "below": 256, "packets": bypassed[0]}]
    assert sum(bar["packets"] for bar in found["histogram_ns"]) == bypassed[0]
    assert 0 < found["p50_ns"] <= found["p99_ns"] <= found["longest_ns"]
    runs = {name: cost["runs"] for name, cost in document["programs"].items()}
    assert runs["from_pod"] >= 10
    assert runs["from_nic"] >= 10
    shown = Page(browser.rendered(page, tmp_path)).figures
    assert shown["latency.pod_to_nic.bypass.packets"] == str(bypassed[0])
    assert shown["programs.from_pod.runs"] == str(runs["from_pod"])


def test_the_kernel_path_alone(lab):
    """While the programs stand aside every packet is on the kernel path's side, of any size."""
    lab.ask("node1", op="bypass", enabled=False)
    try:
        with profiling(lab, "node1") as document:
            talk(lab, "node1-pod1", "node2-pod1", count=5, size=1000)
            talk(lab, "node1-pod1", "node1-pod2", count=4)
    finally:
        lab.ask("node1", op="bypass", enabled=True)
    assert packets(document, "pod_to_nic") == (0, 5)
    assert packets(document, "nic_to_udp") == (0, 5)
    # Request and answer.
    assert packets(document, "pod_to_udp") == (0, 8)
    found = document["latency"]["pod_to_nic"]["kernel"]
    assert found["histogram_bytes"] == [{"from": 1024, "below": 2048, "packets": 5}]


def test_one_pods_packets(lab):
    """With --pod the others' are not followed: neither out, nor in, nor to another pod."""
    with profiling(lab, "node1", "--pod", lab.address("node1-pod2")) as document:
        talk(lab, "node1-pod1", "node2-pod1")
        talk(lab, "node1-pod1", "node1-pod2", count=3)
        talk(lab, "node1-pod2", "node2-pod1", count=7)
    assert sum(packets(document, "pod_to_nic")) == 7
    assert sum(packets(document, "nic_to_udp")) == 7
    # Its answers go to a pod that is not profiled.
    assert sum(packets(document, "pod_to_udp")) == 0


def test_the_nodes_own_packets_are_nobodys(lab):
    """What the node's sockets send and receive is on no leg, from pods or over the NIC."""
    with profiling(lab, "node1") as document:
        talk(lab, "node1-pod1", "node1", count=20)
        talk(lab, "node1", "node2", count=20)
        talk(lab, "node2", "node1-pod1", count=20)
    # Only the last came in by the NIC for a pod, and the pod's answers left by it.
    followed = {leg: sum(packets(document, leg)) for leg in document["latency"]}
    assert followed.pop("pod_to_nic") == 20
    assert followed.pop("nic_to_udp") == 20
    assert not any(followed.values())


def test_tcp_and_losses(lab):
    """Super-packets, and a SYN without an answer by its peer."""
    listen = [sys.executable, STREAM, "serve", "7300", "4000000"]
    connect = [sys.executable, STREAM, "connect", f"{lab.address('node2-pod1')}:7300", "4000000"]
    silent = (
        "import socket; s = socket.socket(); s.settimeout(1.8); s.connect_ex(('10.42.2.200', 1))"
    )
    with lab.spawn("node2-pod1", *listen, stdout=-1) as server:
        assert server.stdout.readline() == "listening\n"
        with profiling(lab, "node1") as document:
            lab.exec("node1-pod1", *map(str, connect))
            lab.exec("node1-pod1", sys.executable, "-c", silent)
    bypass = {leg: paths["bypass"] for leg, paths in document["latency"].items()}
    assert bypass["nic_to_tcp"]["packets"] > 20
    assert bypass["pod_to_nic"]["segments_per_packet"] > 1
    assert bypass["pod_to_nic"]["histogram_bytes"][-1]["below"] > 16384
    (lost,) = [row for row in document["losses"] if row["unanswered_syns"]]
    assert lost["peer"] == "10.42.2.0/24"


def test_programs_that_are_replaced_meanwhile(make_lab):
    """It is said that the figures are those of the old ones."""
    lab = make_lab(nodes=1, pods_per_node=1, kernel_only=0)
    with profiling(lab, "node1") as document:
        lab.kill_agent("node1")
        lab.start_agent("node1", "--strict")
    sentence = "the programs were replaced or removed meanwhile: only what those cost is counted"
    assert document["missing"] == [sentence]


def programs_of(pid):
    """The numbers of the programs that a process holds."""
    numbers = set()
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            numbers |= set(
                map(int, re.findall(r"^prog_id:\s+(\d+)$", file.read_text(), re.MULTILINE))
            )
    return numbers


def loaded(lab):
    """The numbers of all programs that the kernel has."""
    return {one["id"] for one in json.loads(lab.exec("node1", "bpftool", "-j", "prog").stdout)}


def test_a_ctrl_c_that_comes_twice(lab):
    """The figures are shown all the same: timeout(1) sends on what the terminal has sent."""
    with begun(lab, "node1") as profile:
        profile.send_signal(signal.SIGINT)
        time.sleep(0.02)
        profile.send_signal(signal.SIGINT)
        said, _ = profile.communicate(timeout=20)
    assert profile.returncode == 0
    assert "seconds" in json.loads(said)


def test_nothing_stays_after_kill(lab):
    """A profile that is killed leaves no process and no program behind."""
    with begun(lab, "node1") as profile:
        children = Path(f"/proc/{profile.pid}/task/{profile.pid}/children").read_text()
        (child,) = map(int, children.split())
        programs = programs_of(child)
        assert len(programs) == len(TRACEPOINTS)
        assert programs <= loaded(lab)
        profile.kill()
    wait_for(lambda: not Path(f"/proc/{child}").exists(), "the child's end", seconds=20)
    wait_for(lambda: not programs & loaded(lab), "its programs' end", seconds=20)


def test_no_headers_stay_when_it_is_interrupted_early(lab, tmp_path):
    """Ctrl-C while its programs are compiled ends the compiler, and its headers go."""
    env = {"VXLANE_STATE_DIR": str(lab.node("node1").directory), "TMPDIR": str(tmp_path)}
    command = [program("vxlane"), "profile", "--seconds", "60"]
    with lab.spawn("node1", *command, stderr=-1, env=os.environ | env) as profile:
        wait_for(lambda: [*tmp_path.glob("*/*")], "headers", seconds=20)
        profile.send_signal(signal.SIGINT)
        _, said = profile.communicate(timeout=20)
    assert said.strip() == "Aborted!"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_machine")
def test_a_tracepoint_that_this_kernel_lacks(tmp_path):
    """The process that follows packets answers which it is, and goes on."""
    defines = tracer._defines(Subject((), (), ()))
    request = {"defines": defines, "devices": {}, "pods": [], "scratch": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITH_ONE_MORE],
        input=json.dumps(request) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    attached, seen = map(json.loads, done.stdout.splitlines())
    assert attached == {"missing": ["nosuch"]}
    assert len(seen["legs"]) == 10


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--pod", "10.42.1.250"], "this node has no pod '10.42.1.250'; 'vxlane pods' lists"),
        (
            ["--html", "/nonexistent/profile.html"],
            "can't write /nonexistent/profile.html: there is no",
        ),
    ],
)
def test_what_is_wrong_is_said_at_once(lab, options, sentence):
    """A pod that is not there, or a place that can't be written, before anything is measured."""
    env = {"VXLANE_STATE_DIR": str(lab.node("node1").directory)}
    command = [program("vxlane"), "profile", "--seconds", "60", *options]
    done = lab.exec("node1", *command, env=env, check=False, timeout=20)
    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.parametrize("full", ["stdout", "--json", "--html"])
def test_what_can_not_be_written_costs_itself_alone(lab, tmp_path, full):
    """The figures stand in all other places, and what is full is named."""
    env = {"VXLANE_STATE_DIR": str(lab.node("node1").directory)}
    files = {option: tmp_path / option for option in ("--json", "--html")} | {full: "/dev/full"}
    command = [program("vxlane"), "profile", "--seconds", "0.1"]
    command += ["--json", str(files["--json"]), "--html", str(files["--html"])]
    shell = 'exec "$@" >/dev/full' if full == "stdout" else 'exec "$@"'
    done = lab.exec("node1", "sh", "-c", shell, "sh", *command, env=env, check=False, timeout=20)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert ("all pods" in done.stdout) is (full != "stdout")
    assert all(file.stat().st_size for file in files.values() if isinstance(file, Path))
