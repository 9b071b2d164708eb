# SPDX-License-Identifier: Apache-2.0
"""What the loader says of a compiler that failed, by what that left behind."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from vxlane.datapath import compiler, load, precompiled, reasons, source
from vxlane.datapath.source import Part
from vxlane.errors import CompileError, KernelError

TRACE = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n'
REFUSED = f"""could not open bpf map: settings, error: Operation not permitted

{TRACE}Exception: Failed to compile BPF module <text>
"""
VERIFIER = """12: (61) r1 = *(u32 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 13 insns (limit 1000000) max_states_per_insn 0 total_states 0
"""
UNLOADED = "the programs did not load: to_pod: R0 invalid mem access 'map_value_or_null'"


@pytest.fixture
def brought(tmp_path: Path, monkeypatch) -> Path:
    """Where the programs would be that came with the package; none have."""
    monkeypatch.setattr(precompiled, "FILE", tmp_path / "compiled.json")
    return precompiled.FILE


@pytest.mark.usefixtures("brought")
@pytest.mark.parametrize(
    ("status", "output", "sentence"),
    [
        (-signal.SIGKILL, "", "the compiler was killed: it needs 120 MB"),
        (1, "LLVM ERROR: out of memory\n", "the compiler was killed: it needs 120 MB"),
        (-signal.SIGABRT, "terminate called, std::bad_alloc", "it needs 120 MB"),
        (
            1,
            f"{TRACE}ModuleNotFoundError: No module named 'bcc'\n",
            "no compiled programs came with this vxlane, and bcc is missing",
        ),
        (1, "bpf/flow.h:7:3: error: no such\n", "bpf/flow.h:7:3: error: no such"),
        (1, REFUSED, "compile: could not open bpf map: settings, error: Operation not permitted"),
        (
            1,
            f"{VERIFIER}\nHINT: The error\n\n{TRACE}Exception: x\n",
            "did not compile: HINT: The error",
        ),
        (1, f"{TRACE}Exception: Unknown program\n", "compile: Exception: Unknown program"),
        (-signal.SIGSEGV, "Stack dump\n", "Stack dump (the compiler was ended by SIGSEGV)"),
    ],
    ids=[
        "killed",
        "llvm",
        "bad-alloc",
        "no-bcc",
        "located",
        "map",
        "hint",
        "python",
        "crashed",
    ],
)
def test_sentences(status: int, output: str, sentence: str) -> None:
    """One sentence has the cause, in bcc's own words where there are any."""
    said = compiler.sentence(status, output)
    assert sentence in said
    assert "\n" not in said
    assert "Failed to" not in said


def test_the_verifiers_refusal_is_told() -> None:
    """It stands before the last line of the log; another log's end is told as it is."""
    assert load.refusal(VERIFIER) == "R0 invalid mem access 'map_value_or_null'"
    assert load.refusal("unknown func\n") == "unknown func"


@pytest.mark.parametrize(
    ("release", "lacks", "sentence"),
    [
        (
            "5.10.0-32-amd64",
            "CAP_BPF",
            "the programs need Linux 5.15 or later, this is 5.10.0-32-amd64",
        ),
        (
            "6.18.0",
            "CAP_PERFMON",
            f"{UNLOADED}; this process lacks CAP_PERFMON",
        ),
        (
            "6.18.0",
            "",
            UNLOADED,
        ),
    ],
    ids=["old", "capability", "program"],
)
def test_a_refused_program(tmp_path, monkeypatch, release, lacks, sentence) -> None:
    """The kernel's age explains it whatever the verifier said; else that is told, with the
    capability that lacks; and only root reads the log.
    """

    def refuse(_code, _name, log=None):
        if log:
            log.value = VERIFIER.encode()
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(load, "prog_load", refuse)
    monkeypatch.setattr(reasons.os, "uname", lambda: SimpleNamespace(release=release))
    monkeypatch.setattr(reasons, "missing", lambda _: lacks)
    log = tmp_path / "compile.log"
    with pytest.raises(CompileError) as raised:
        load._load("to_pod", b"", log)
    assert str(raised.value) == f"{sentence}; all of the verifier's words are in {log}"
    assert log.read_text() == VERIFIER
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_kernel_that_refuses_a_map_is_too_old(monkeypatch) -> None:
    """Before 5.11 a map may be refused for want of locked memory, which is no seccomp profile."""
    monkeypatch.setattr(reasons.os, "uname", lambda: SimpleNamespace(release="5.10.0-32-amd64"))
    monkeypatch.setattr(reasons, "missing", lambda _: "")
    with (
        pytest.raises(KernelError, match=r"5\.15 or later, this is 5\.10\.0-32-amd64"),
        load._allowed("make the map flows"),
    ):
        raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_kernel_that_is_too_old_is_named(monkeypatch) -> None:
    """Whatever the verifier missed there, what is needed and what is there is said."""
    monkeypatch.setattr(reasons.os, "uname", lambda: SimpleNamespace(release="5.10.0-32-amd64"))
    said = compiler.sentence(1, "unknown func bpf_ktime_get_coarse_ns#160\nprocessed 3 insns\n")
    assert said == "the programs need Linux 5.15 or later, this is 5.10.0-32-amd64"


def test_programs_of_another_version_are_named(brought: Path) -> None:
    """What was compiled of other sources is not the same as nothing."""
    brought.write_text(json.dumps({"sources": "of another version"}))
    assert precompiled.find(Part.PROGRAMS) is None
    said = compiler.sentence(1, "ModuleNotFoundError: No module named 'bcc'\n")
    assert said.startswith(f"the programs in {brought} are of another version's sources")
    assert "install the package python3-bpfcc" in said


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sources": 7'])
def test_damaged_programs_have_a_sentence(brought: Path, content: str) -> None:
    """No compiler is asked in their place: the package is not what was shipped."""
    brought.write_text(content)
    with pytest.raises(CompileError, match="is damaged; install vxlane again"):
        precompiled.find(Part.PROGRAMS)


def test_a_capability_that_lacks_is_named(monkeypatch) -> None:
    """EPERM alone does not tell what a container has to be given."""
    monkeypatch.setattr(reasons, "missing", lambda _: "CAP_BPF")
    assert compiler.sentence(1, REFUSED).endswith("; this process lacks CAP_BPF")


def test_all_that_was_said_is_kept(tmp_path, monkeypatch) -> None:
    """The error names a file, which only root reads; without room for one it does without."""
    monkeypatch.setattr(compiler.sys, "executable", "/bin/false")
    monkeypatch.setattr(reasons, "missing", lambda _: "")
    log = tmp_path / "compile.log"
    with pytest.raises(CompileError, match=f"all of its output is in {log}"):
        compiler.run(Part.PROGRAMS, log)
    assert log.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CompileError, match=r"did not compile: no word why$"):
        compiler.run(Part.PROGRAMS, tmp_path / "missing" / "compile.log")


def test_a_compiler_that_is_killed_leaves_no_headers(tmp_path, monkeypatch) -> None:
    """The directory for them goes when the compiler takes too long, too."""
    made = tmp_path / "made"
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
        read request
        scratch=${{request##*'"scratch": "'}}
        touch "${{scratch%%'"'*}}/header" && touch {made}
        exec sleep 60
        """
    )
    python.chmod(0o755)
    headers = tmp_path / "headers"
    headers.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(headers))
    monkeypatch.setattr(compiler.sys, "executable", str(python))
    monkeypatch.setattr(compiler, "TIMEOUT", 2.0)
    with pytest.raises(CompileError, match="did not end within 2 s"):
        compiler.run(Part.PROGRAMS, tmp_path / "log")
    assert made.exists()
    assert not list(headers.iterdir())


def test_kernel_headers_are_unpacked_to_a_place_of_our_own(tmp_path, monkeypatch) -> None:
    """Bcc takes those under a fixed name in /tmp, which anyone may have put there."""
    header = tmp_path / "bpf.h"
    header.write_text("/* of the kernel */\n")
    monkeypatch.setattr(source, "_KHEADERS", tmp_path / "kheaders.tar.xz")
    with tarfile.open(source._KHEADERS, "w:xz") as archive:
        archive.add(header, "include/linux/bpf.h")
    monkeypatch.setattr(source.os, "uname", lambda: SimpleNamespace(release="none"))
    scratch = tmp_path / "scratch"
    found = source.kernel_headers(scratch)
    assert found.path == scratch
    assert (scratch / "include/linux/bpf.h").read_text() == header.read_text()


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize(
    ("text", "is_error"),
    [
        ("static inline void kcsan(int type) { }", False),  # as Debian's headers of 6.1 have it
        ("int judge(void) { return htons(1); }", True),
    ],
)
def test_a_kernels_own_headers_may_warn(tmp_path, monkeypatch, text, is_error) -> None:
    """A warning in a kernel's own headers fails nothing, and an undeclared function still does."""
    monkeypatch.setattr(source, "_KHEADERS", tmp_path / "kheaders.tar.xz")
    with tarfile.open(source._KHEADERS, "w:xz"):
        pass
    monkeypatch.setattr(source.os, "uname", lambda: SimpleNamespace(release="none"))
    flags = [*source.WARNINGS, *source.kernel_headers(tmp_path).flags]
    command = ["clang", "-fsyntax-only", *flags, "-x", "c", "-"]
    done = subprocess.run(command, check=False, input=text, capture_output=True, text=True)
    assert (done.returncode != 0) is is_error, done.stderr
