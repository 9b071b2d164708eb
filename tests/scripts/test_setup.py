# SPDX-License-Identifier: Apache-2.0
"""scripts/setup on machines that it can't help, and twice at once."""

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def setup(tmp_path):
    """Run a copy of scripts/setup with some commands replaced by one-line scripts."""
    copy = tmp_path / "copy"
    shutil.copytree(REPOSITORY / "scripts", copy / "scripts")
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    replaced = tmp_path / "bin"
    replaced.mkdir()

    def run(*arguments, **commands):
        for name, line in commands.items():
            file = replaced / name.replace("_", "-")
            file.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
            file.chmod(0o755)
        path = f"{replaced}:/usr/sbin:/usr/bin:/sbin:/bin"
        command = [copy / "scripts" / "setup", *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env={"PATH": path}
        )
        assert not (copy / ".venv" / ".setup-run").exists()
        return done

    return run


def test_not_root(setup):
    """Without root it says so in one sentence and installs nothing."""
    done = setup(id="echo 1000", dpkg_query="exit 1", apt_get="echo must not be called; exit 1")
    assert done.returncode == 1
    assert done.stderr == "setup: needs root to install packages; run it again with sudo\n"


def test_package_manager_fails(setup):
    """When apt-get fails, its own words come first, then one sentence."""
    done = setup(id="echo 0", dpkg_query="exit 1", apt_get='echo "E: no network"; exit 100')
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "E: no network",
        "setup: the package manager failed; its output is above. Fix that and run setup again",
    ]


def test_another_program_installs_packages(setup, tmp_path):
    """Its lock is waited for, that of the lists too, for which apt has no option."""
    held = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)"
    calls = tmp_path / "calls"
    apt_get = f'echo >>{calls}; [ $(wc -l <{calls}) = 3 ] || {{ echo "{held}"; exit 100; }}; exit 7'
    done = setup(id="echo 0", dpkg_query="exit 1", apt_get=apt_get, sleep="exit 0")
    waits = "setup: another program installs packages: waiting up to two minutes for it"
    assert done.stderr.splitlines().count(waits) == 1
    assert len(calls.read_text()) == 3


def test_another_program_never_ends(setup):
    """Then apt's words name it."""
    held = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (dpkg)"
    apt_get = f'echo "{held}"; exit 100'
    done = setup(id="echo 0", dpkg_query="exit 1", apt_get=apt_get, sleep="exit 0")
    assert done.stderr.splitlines()[-2:] == [
        held,
        "setup: the package manager failed; its output is above. Fix that and run setup again",
    ]


def test_another_one_is_at_work(setup, tmp_path):
    """Two at once take turns, for both would make the same .venv."""
    command = ["flock", tmp_path / "copy", "sh", "-c", "echo; exec sleep 0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        done = setup(id="echo 1000", dpkg_query="exit 1")
        assert other.wait() == 0
    assert done.stderr == (
        "setup: another one is at work here: waiting for it\n"
        "setup: needs root to install packages; run it again with sudo\n"
    )


@pytest.mark.parametrize("words", [["--tests"], ["--fast", "--test"], ["--test", ""]])
def test_unknown_option(setup, words):
    """An option that it does not know is named, and it takes one at a time."""
    done = setup(*words)
    assert (done.returncode, done.stderr) == (
        1,
        f"setup: unknown option {' '.join(words)}; --test, --kernels and --fast are known\n",
    )


@pytest.mark.usefixtures("_machine")
def test_nothing_to_do_is_nothing_done():
    """On a machine that is set up it prints nothing and calls no package manager."""
    command = ["env", "PATH=/usr/bin:/bin", REPOSITORY / "scripts" / "setup", "--test"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=2)
    assert done.stdout + done.stderr == ""
