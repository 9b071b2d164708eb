# SPDX-License-Identifier: Apache-2.0
"""What `python -m build` makes, installed and run where there is no checkout.

The wheel is built from the source distribution, as `python -m build` does, so what the wheel holds
the source distribution holds too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {f"vxlane/bpf/{path.name}": path.read_bytes() for path in ROOT.glob("bpf/*.[ch]")} | {
    str(path.relative_to(ROOT / "loader")): path.read_bytes()
    for path in ROOT.glob("loader/vxlane/*/*.[ch]")
    if path.parent.name != "bpf"
}
MANIFESTS = {
    f"vxlane/cluster/manifests/{path.parent.name}/vxlane.yaml": path.read_bytes()
    for path in ROOT.glob("deploy/manifests/*/vxlane.yaml")
}
DOCUMENTS = {"share/man/man8/vxlane.8", "share/doc/vxlane/CHANGELOG.md"} | {
    f"share/doc/vxlane/{path.relative_to(ROOT / 'docs')}" for path in ROOT.glob("docs/**/*.md")
}
LICENCES = {"LICENSE", "bpf/LICENSE.GPL-2.0", "bpf/LICENSE.BSD-2-Clause"}

# The checkout's own packages but not the checkout: a path that is appended to sys.path is no site
# directory, so the editable installation's .pth file in it is not followed.
DEPENDENCIES = next(path for path in sys.path if path.endswith("/site-packages"))

FLATTEN = "import vxlane, vxlane.datapath.source as s; print(vxlane.__file__); print(s.flatten())"


@pytest.fixture(scope="module")
def archives(_machine, tmp_path_factory):
    """Directory of both archives, built from a copy so that the checkout stays as it is."""
    tree = tmp_path_factory.mktemp("build") / "tree"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "tests")
    shutil.copytree(ROOT, tree, symlinks=True, ignore=left_out)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tree / "dist", tree]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "dist"


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory):
    """Run a program of a fresh environment that has the wheel."""
    home = tmp_path_factory.mktemp("installed")
    python = home / "bin/python"
    venv = ["-m", "venv", "--without-pip", "--system-site-packages", home]
    subprocess.run([sys.executable, *venv], check=True)
    (wheel,) = archives.glob("*.whl")
    pip = ["-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, *pip, "--no-index", "--no-deps", wheel], check=True)
    (site,) = home.glob("lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(f"{DEPENDENCIES}\n")

    def run(program, *arguments, **environment):
        command = [home / "bin" / program, *arguments]
        path = f"{home}/bin:{os.environ['PATH']}"
        values = os.environ | {"PATH": path} | environment
        return subprocess.check_output(command, text=True, cwd=home, env=values)

    return run


def test_the_sdist_holds_files_and_no_links(archives):
    """The source distribution holds the programs themselves, byte for byte."""
    (path,) = archives.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        top = archive.getnames()[0]
        assert not [entry.name for entry in archive if not (entry.isfile() or entry.isdir())]
        for name, content in PROGRAMS.items():
            assert archive.extractfile(f"{top}/loader/{name}").read() == content
        assert {f"{top}/{name}" for name in LICENCES} <= set(archive.getnames())


def test_the_wheel_holds_programs_documents_and_licences(archives):
    """Programs and manifests byte for byte, every document, and the licences' texts."""
    (path,) = archives.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        sources = [name for name in names if name.endswith((".c", ".h"))]
        assert {name: archive.read(name) for name in sources} == PROGRAMS
        applied = [name for name in names if name.endswith("/vxlane.yaml")]
        assert {name: archive.read(name) for name in applied} == MANIFESTS
        data = {name.partition(".data/data/")[2] for name in names}
        assert data >= DOCUMENTS
        licences = {name.partition(".dist-info/licenses/")[2] for name in names}
        assert licences >= LICENCES
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        expression = "License-Expression: Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)\n"
        assert expression in archive.read(metadata).decode()


def test_the_program_runs(installed):
    """The installed program prints its help and its version."""
    assert "\n  agent " in installed("vxlane", "--help")
    assert installed("vxlane", "--version").startswith("vxlane ")


def test_the_programs_are_read_from_the_package(installed):
    """The eBPF programs are flattened from the installed package, and are the checkout's."""
    where, _, text = installed("python", "-c", FLATTEN).partition("\n")
    assert Path(where).parents[4].name.startswith("installed")
    here = subprocess.check_output([sys.executable, "-c", FLATTEN], text=True)
    assert text == here.partition("\n")[2]


def test_the_cni_plugin_is_installed_and_answers(installed, tmp_path):
    """`vxlane install` makes a CNI plugin that tells its versions."""
    places = ("--cni-bin-dir", tmp_path / "bin", "--cni-conf-dir", tmp_path / "net.d")
    for place in places[1::2]:
        place.mkdir()
    installed("vxlane", "install", "--role", "main", *places)
    answer = installed(tmp_path / "bin/vxlane", CNI_COMMAND="VERSION")
    assert "1.0.0" in json.loads(answer)["supportedVersions"]
