# SPDX-License-Identifier: Apache-2.0
"""Who may write to the directories of CNI: others, nobody, or root alone."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from cniplace import Place

from vxlane.lab.agents import program


@pytest.fixture
def place(tmp_path):
    """A node without anything of CNI."""
    return Place(tmp_path)


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize("directory", ["bin", "conf"])
def test_a_directory_of_another_user(place, directory):
    """As Kubespray's are: root without DAC_OVERRIDE, as in the chart's container, may not write."""
    place.flannel()
    place.bin.mkdir()
    theirs = getattr(place, directory)
    os.chown(theirs, 1000, 1000)
    limited = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-all"]
    places = ["--cni-bin-dir", place.bin, "--cni-conf-dir", place.conf, "--form", "conflist"]
    command = [*limited, program("vxlane"), "install", *places]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{theirs} may not be written; be root, and in a container have DAC_" in done.stderr
    assert place.files() == ["net.d/10-flannel.conflist"]
    assert place.vxlane("install", "--form", "conflist").returncode == 0
    command = [*limited, program("vxlane"), "uninstall", *places[:-2]]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    said = re.fullmatch(r"vxlane: (.*): Permission denied; (.*)\n", done.stderr)
    assert said
    assert Path(said[1]).parent == theirs
    assert said[2] == "this process lacks CAP_DAC_OVERRIDE"


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize("directory", ["bin", "conf"])
def test_a_read_only_file_system(place, directory):
    """No capability would help, so that is what is said, and nothing is changed."""
    place.flannel()
    place.bin.mkdir()
    there = getattr(place, directory)
    script = f"mount --bind {there} {there}; mount -o remount,bind,ro {there}; exec "
    places = f"--cni-bin-dir {place.bin} --cni-conf-dir {place.conf} --form conflist"
    command = ["unshare", "--mount", "sh", "-ec", f"{script}{program('vxlane')} install {places}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    said = f"{there} is on a read-only file system; mount it so that it can be written"
    assert (done.returncode, done.stderr) == (1, f"vxlane: {said}\n")
    assert place.files() == ["net.d/10-flannel.conflist"]


@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_umask_opens_and_closes_no_directory(place, umask):
    """Who may write beside what root runs, or in the lists of what it runs, is root."""
    before = os.umask(umask)
    try:
        place.vxlane("install", "--form", "drop-in")
    finally:
        os.umask(before)
    made = (place.bin, place.conf, place.conf / "cbr0")
    assert [directory.stat().st_mode & 0o777 for directory in made] == [0o755] * 3


def test_a_file_where_drop_ins_would_be(place):
    """A form that has none comes and goes all the same."""
    place.flannel()
    (place.conf / "cbr0").touch()
    for command, options in (("install", ["--form", "conflist"]), ("uninstall", [])):
        done = place.vxlane(command, *options)
        assert (done.returncode, done.stderr) == (0, "")
    assert place.files() == ["net.d/10-flannel.conflist", "net.d/cbr0"]
