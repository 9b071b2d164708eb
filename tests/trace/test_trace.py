# SPDX-License-Identifier: Apache-2.0
"""`vxlane trace` under real traffic: what it shows, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labundertest import LabUnderTest
from listening import CLIENT, NODE, SERVER, ping

from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for


class Trace:
    """A `vxlane trace --json` on node1 that listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr
        assert process.stderr.readline() == "listening; Ctrl-C ends it\n"
        self.said = ""

    def end(self) -> list[dict[str, Any]]:
        """Interrupt it; its events."""
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> list[dict[str, Any]]:
        """The events of one that ends by itself."""
        lines, self.said = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, self.said
        return [json.loads(line) for line in lines.splitlines()]


@contextlib.contextmanager
def tracing(lab: LabUnderTest, *options: str) -> Iterator[Trace]:
    """Trace on node1."""
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(NODE).directory)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with lab.spawn(NODE, program("vxlane"), "trace", "--json", *options, env=env, **pipes) as child:
        yield Trace(child)


def test_each_hook_is_seen(lab: LabUnderTest) -> None:
    """The first echo is shown at all four hooks, those that are bypassed at the entrances."""
    with tracing(lab) as trace:
        ping(lab, CLIENT, SERVER, 3, 101)
        events = trace.end()
    seen = [
        (event["hook"], event["verdict"])
        for event in events
        if event["protocol"] == "icmp" and event["source_port"] == 101
    ]
    assert seen == [
        ("from_pod", "flow_unknown"),
        ("to_nic", "learned"),
        ("from_nic", "flow_half"),
        ("to_pod", "learned"),
        *[("from_pod", "encapsulated"), ("from_nic", "decapsulated")] * 2,
    ]
    assert trace.said.splitlines()[-1] == f"{len(events)} packets, 0 lost"


def test_a_filter_shows_its_packets_alone(lab: LabUnderTest) -> None:
    """While others talk, a trace of one pod's echoes to one peer shows these and all of these."""
    mine = ["--pod", lab.pod(CLIENT).name, "--peer", lab.node("node2").name, "--proto", "icmp"]
    with tracing(lab, *mine, "--verdict", "bypassed") as trace:
        with lab.verdicts(NODE) as counted:
            for source, target in (
                (CLIENT, SERVER),
                ("node1-pod2", SERVER),
                (CLIENT, "node1-pod2"),
                ("node2-pod2", "node1-pod2"),
            ):
                ping(lab, source, target, 4, 102)
        events = trace.end()
    ends = {
        (lab.address(CLIENT), lab.address(SERVER)),
        (lab.address(SERVER), lab.address(CLIENT)),
    }
    assert {(event["source"], event["destination"]) for event in events} == ends
    assert {event["source_port"] for event in events} == {102}
    assert [event["hook"] for event in events] == ["from_pod", "from_nic"] * 3
    assert counted["from_pod", "encapsulated"] >= 9


def test_a_flow_in_both_directions(lab: LabUnderTest) -> None:
    """A trace of a flow as `vxlane flows` lists it shows both directions of that flow alone."""
    ping(lab, CLIENT, SERVER, 2, 103)
    flow = f"icmp {lab.address(CLIENT)}:103 {lab.address(SERVER)}:8"
    with tracing(lab, "--flow", flow, "--count", "4") as trace:
        ping(lab, CLIENT, SERVER, 3, 104)
        ping(lab, CLIENT, SERVER, 3, 103)
        events = trace.ended()
    assert [(event["hook"], event["source_port"]) for event in events] == [
        ("from_pod", 103),
        ("from_nic", 103),
    ] * 2


def test_a_pod_that_is_not_there(lab: LabUnderTest) -> None:
    """A trace of an address that no pod of this node has says so, and shows its packets still."""
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(NODE).directory)}
    argv = [program("vxlane"), "trace", "--pod", lab.address(SERVER)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with lab.spawn(NODE, *argv, env=env, **pipes) as child:
        assert child.stderr
        note = f"note: no accelerated pod of this node has the address {lab.address(SERVER)}; see"
        assert child.stderr.readline() == f"{note} 'vxlane pods'\n"
        assert child.stderr.readline() == "listening; Ctrl-C ends it\n"
        ping(lab, CLIENT, SERVER, 1, 110)
        child.send_signal(signal.SIGINT)
        said, _ = child.communicate(timeout=20)
    assert f"{lab.address(CLIENT)}:110 > {lab.address(SERVER)}:8" in said


def test_what_finds_no_room_is_counted(lab: LabUnderTest) -> None:
    """With room for 46 packets and a reader that is stopped, those shown and lost are all."""
    with tracing(lab, "--proto", "icmp", "--pod", lab.address(CLIENT), "--buffer", "4") as trace:
        with lab.verdicts(NODE) as counted:
            trace.process.send_signal(signal.SIGSTOP)
            argv = ["ping", "-n", "-q", "-f", "-c", "200", "-e", "105", lab.address(SERVER)]
            lab.exec(CLIENT, *argv)
            trace.process.send_signal(signal.SIGCONT)
        events = trace.end()
    others = {"not_ip", "not_overlay"}
    all_of_them = sum(n for (_, verdict), n in counted.items() if verdict not in others)
    lost = all_of_them - len(events)
    assert 0 < len(events) < 60
    assert f"{len(events)} packets, {lost} lost since the buffer was full" in trace.said


def test_one_looks_at_a_time(lab: LabUnderTest) -> None:
    """A second trace ends with a sentence that names the first, which goes on."""
    env = {"VXLANE_STATE_DIR": str(lab.node(NODE).directory)}
    with tracing(lab, "--count", "1", "--proto", "icmp") as trace:
        done = lab.exec(NODE, program("vxlane"), "trace", env=env, check=False)
        ping(lab, CLIENT, SERVER, 1, 106)
        assert len(trace.ended()) == 1
    assert done.returncode == 1
    assert f"process {trace.process.pid} looks at this node's packets already" in done.stderr


def test_a_killed_trace_harms_nobody(lab: LabUnderTest) -> None:
    """After kill -9 every packet still arrives, the agent clears the place, and a trace works."""
    with tracing(lab) as trace:
        argv = ["ping", "-n", "-q", "-c", "30", "-i", "0.02", "-e", "107", lab.address(SERVER)]
        with lab.spawn(CLIENT, *argv, stdout=subprocess.PIPE) as talk:
            trace.process.kill()
            trace.process.wait()
            said, _ = talk.communicate(timeout=20)
        assert "30 received, 0% packet loss" in said
    with lab.maps(NODE) as maps:
        wait_for(lambda: not maps.has_tracer(), "the agent's clearing")
    with tracing(lab, "--count", "2", "--proto", "icmp") as trace:
        ping(lab, CLIENT, SERVER, 2, 108)
        assert len(trace.ended()) == 2
    with lab.maps(NODE) as maps:
        assert not maps.has_tracer()


def test_a_pod_that_comes_meanwhile(lab: LabUnderTest) -> None:
    """A pod that the agent hears of while a trace runs has its name from then on."""
    made = lab.node(NODE).directory / "pods" / "made,eth0.json"
    with tracing(lab, "--proto", "icmp", "--host", lab.address(SERVER)) as trace:
        ping(lab, CLIENT, SERVER, 1, 111)
        assert trace.process.stdout
        first = json.loads(trace.process.stdout.readline())
        document = {"name": "lab/later", "addresses": [lab.address(SERVER)]}
        made.write_text(json.dumps(document))
        try:
            ping(lab, CLIENT, SERVER, 1, 112)
            events = trace.end()
        finally:
            made.unlink()
    assert first["destination_pod"] is None
    later = next(event for event in events if event["source_port"] == 112)
    assert later["destination_pod"] == "lab/later"


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_an_output_without_room(lab: LabUnderTest, tmp_path: Path, option: tuple[str, ...]) -> None:
    """A trace whose output finds no room any more says so, and how many lines are whole."""
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(NODE).directory)}
    env.pop("PYTHONUNBUFFERED", None)  # Of a part that was written it loses the rest unseen.
    file, pod = tmp_path / "x", lab.address(CLIENT)
    traced = shlex.join([program("vxlane"), "trace", "--pod", pod, *option])
    limited = f"ulimit -f 2; exec {traced} >{file}"
    with lab.spawn(NODE, "bash", "-c", limited, env=env, stderr=subprocess.PIPE) as child:
        assert child.stderr
        assert child.stderr.readline() == "listening; Ctrl-C ends it\n"
        ping(lab, CLIENT, SERVER, 30, 113)
        counts, failure = child.stderr.read().splitlines()
        assert child.wait() == 1
    assert failure == "vxlane: standard output: File too large"
    whole = file.read_text().count("\n")
    assert whole > 1
    assert counts == f"{whole} packets, 0 lost"


def test_a_reader_that_goes(lab: LabUnderTest) -> None:
    """A trace whose reader has seen enough ends without a word."""
    with tracing(lab, "--proto", "icmp") as trace:
        assert trace.process.stdout
        assert trace.process.stderr
        trace.process.stdout.close()
        ping(lab, CLIENT, SERVER, 1, 114)
        assert trace.process.stderr.read() == ""
        assert trace.process.wait() == 1


def test_the_shell_completes(lab: LabUnderTest) -> None:
    """Pods and peers are completed by their names and addresses."""
    pod, peer = lab.pod(CLIENT), lab.node("node2")
    for option, begun, expected in (
        ("--pod", f"lab/{pod.name}", f"lab/{pod.name}"),
        ("--pod", str(pod.address), str(pod.address)),
        ("--peer", peer.name, peer.name),
        ("--peer", "10.42.2.", "10.42.2.0/24"),
    ):
        env = {"VXLANE_STATE_DIR": str(lab.node(NODE).directory), "COMP_CWORD": "3"}
        env |= {"_VXLANE_COMPLETE": "bash_complete", "COMP_WORDS": f"vxlane trace {option} {begun}"}
        assert lab.exec(NODE, program("vxlane"), env=env).stdout == f"plain,{expected}\n"


def test_lines(lab: LabUnderTest) -> None:
    """Without --json a line has the hook, both ends, the length, the verdict and its meaning."""
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(NODE).directory)}
    argv = [program("vxlane"), "trace", "--count", "1", "--pod", lab.address(CLIENT)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with lab.spawn(NODE, *argv, "--verdict", "encapsulated", env=env, **pipes) as child:
        assert child.stderr
        child.stderr.readline()
        ping(lab, CLIENT, SERVER, 3, 109)
        said, _ = child.communicate(timeout=20)
    ends = f"{lab.address(CLIENT)}:109 > {lab.address(SERVER)}:8"
    assert said.endswith(f" from_pod icmp {ends} 98 B  encapsulated: bypassed: pod -> NIC\n")
