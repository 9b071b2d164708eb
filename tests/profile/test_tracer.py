# SPDX-License-Identifier: Apache-2.0
"""What the profile lacks when packets can't be followed, one sentence each, and it goes on."""

import errno
import sys

import pytest

from vxlane.datapath import syscall
from vxlane.profile import btf, tracer
from vxlane.profile.costs import Costs
from vxlane.profile.tracer import Seen, Subject, Tracer

NOBODY = Subject(veths=(), nics=(), pods=())


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Have a script stand in for the process that follows packets, on a kernel with BTF."""
    monkeypatch.setattr(tracer, "_defines", lambda _: {})

    def put(script):
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return put


def test_tracepoints_that_a_kernel_lacks(child):
    """Each is named with what the profile has not without it; the rest is seen."""
    child(
        """read request; echo '{"missing": ["tcp_probe"]}'; read end
        echo '{"legs": [], "retransmits": [{"remote": "10.0.0.1"}]}'"""
    )
    made = Tracer()
    made.begin(NOBODY)
    assert made.end() == Seen([], [{"remote": "10.0.0.1"}])
    assert made.missing == [
        "this kernel has no tracepoint tcp_probe: TCP's packets are followed only on their way out"
    ]


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo \"No module named 'bcc'\" >&2; exit 1", "bcc is missing; install"),
        ("read request; echo 'verifier: no' >&2; exit 1", "verifier: no"),
    ],
)
def test_a_process_that_can_not_begin(child, script, sentence):
    """Why is told, and nothing was seen."""
    child(script)
    made = Tracer()
    made.begin(NOBODY)
    assert made.end() == Seen()
    assert made.missing[0].startswith("packets can't be followed: ")
    assert sentence in made.missing[0]


def test_a_process_that_ends_too_early(child):
    """What it had seen is lost, and that is said."""
    child("read request; echo '{\"missing\": []}'")
    made = Tracer()
    made.begin(NOBODY)
    assert made.end() == Seen()
    assert made.missing == ["what was seen of packets is lost: the process with it has ended"]


def test_a_kernel_that_does_not_tell_its_structs(tmp_path, monkeypatch):
    """A kernel without BTF is named as that."""
    monkeypatch.setattr(btf, "KERNEL", tmp_path / "vmlinux")
    made = Tracer()
    made.begin(NOBODY)
    assert "CONFIG_DEBUG_INFO_BTF" in made.missing[0]
    assert made.end() == Seen()


def test_a_kernel_that_can_not_be_asked_to_count(tmp_path, monkeypatch):
    """Before Linux 5.8 the programs' cost is missing, and it is said what would count it."""

    def refuse(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(syscall, "call", refuse)
    costs = Costs(tmp_path)
    costs.begin()
    assert costs.end() == {}
    assert "Linux 5.8" in costs.missing[0]
    assert "kernel.bpf_stats_enabled" in costs.missing[0]
