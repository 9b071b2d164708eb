# SPDX-License-Identifier: Apache-2.0
"""The executable that `vxlane install` writes, and its interpreter."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cniplace import Place

from vxlane.install import executable


@pytest.fixture
def place(tmp_path):
    """A node without anything of CNI."""
    return Place(tmp_path)


def test_executable_needs_no_environment(place):
    """The executable runs with an empty environment, from anywhere, under another name."""
    place.vxlane("install", "--form", "drop-in")
    shutil.copy2(place.bin / "vxlane", place.bin / "flannel")
    for name in ("vxlane", "flannel"):
        env = {"CNI_COMMAND": "VERSION"}
        argv = [str(place.bin / name)]
        done = subprocess.run(argv, env=env, cwd="/", capture_output=True, check=True, input=b"{}")
        assert json.loads(done.stdout)["supportedVersions"][-1] == "1.1.0"


def test_executable_is_reproducible():
    """The same modules make the same bytes, which is how a second run knows."""
    assert executable.build(Path("/usr/bin/python3")) == executable.build(Path("/usr/bin/python3"))


@pytest.mark.parametrize("path", ["python3", "./python3"])
def test_relative_interpreters(place, path):
    """An interpreter that depends on a PATH or a directory is refused."""
    done = place.vxlane("install", "--form", "drop-in", "--interpreter", path)
    assert (done.returncode, place.files()) == (1, [])
    assert "is not absolute" in done.stderr


def test_interpreter_of_another_root(tmp_path):
    """It is looked for where the runtime finds it: links are the node's, and it is not run."""
    place = Place(tmp_path / "host", root=tmp_path / "host")
    options = ("--form", "drop-in", "--interpreter", "/usr/bin/python3")
    done = place.vxlane("install", *options)
    assert (done.returncode, place.files()) == (1, [])
    assert f"no program /usr/bin/python3 below {place.root}" in done.stderr
    (place.root / "usr/bin").mkdir(parents=True)
    (place.root / "usr/bin/python3").symlink_to("../../opt/python")
    assert place.vxlane("install", *options).returncode == 1
    (place.root / "opt").mkdir()
    (place.root / "opt/python").touch(mode=0o755)
    done = place.vxlane("install", *options)
    assert done.returncode == 0
    assert b"\nexec /usr/bin/python3 -X utf8 -ISc " in (place.bin / "vxlane").read_bytes()
    place.vxlane("uninstall")
    assert place.files() == []


def test_an_interpreter_that_is_missing(place):
    """It is refused, and nothing is written."""
    done = place.vxlane("install", "--form", "drop-in", "--interpreter", "/none/python3")
    assert (done.returncode, place.files()) == (1, [])
    assert "there is no program /none/python3; name a Python with --interpreter" in done.stderr


def test_old_interpreter(place, tmp_path):
    """An interpreter that says to be too old is refused by its name."""
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\necho 2 7\n", encoding="ascii")
    old.chmod(0o755)
    done = place.vxlane("install", "--form", "drop-in", "--interpreter", str(old))
    assert done.returncode == 1
    assert "is older than Python 3.10" in done.stderr


def test_another_version_s_byte_code(place):
    """An interpreter that can't use the byte code reads the sources beside it."""
    place.vxlane("install", "--form", "drop-in")
    # A source that answers another version than the byte code, and is of the same length.
    told = (b"NEWEST = VERSIONS[-1]", b'NEWEST = "of sources"')
    plugin = place.bin / "told"
    plugin.write_bytes((place.bin / "vxlane").read_bytes().replace(*told))
    other = "import _frozen_importlib_external as e; e.MAGIC_NUMBER = b'othr'\n"
    for before, version in (("", "1.1.0"), (other, "of sources")):
        argv = [sys.executable, "-ISc", before + executable.START, str(plugin)]
        env = {"CNI_COMMAND": "VERSION"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, input="{}")
        assert json.loads(done.stdout)["cniVersion"] == version
