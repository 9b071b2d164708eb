# SPDX-License-Identifier: Apache-2.0
"""The plugin with an interpreter of its own: what is put beside it, and how it is replaced."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vxlane.install import beside
from vxlane.runtime import interpreter
from vxlane.util import files

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """Stands in for what an image brings."""
    made = tmp_path / "interpreter"
    (made / "lib").mkdir(parents=True)
    (made / "lib" / "libc.so.6").write_bytes(b"library")
    for name in ("launcher", "ld.so", "python"):
        (made / name).write_bytes(name.encode())
        (made / name).chmod(0o755)
    monkeypatch.setattr(beside, "BROUGHT", made)
    return made


def current(program):
    """The version that the next call finds."""
    link = program.with_name(".vxlane") / "current"
    return link.parent / link.readlink()


def versions(program):
    """All that are there."""
    return {each for each in program.with_name(".vxlane").iterdir() if not each.is_symlink()}


@pytest.mark.usefixtures("brought")
def test_what_is_put_beside_it(tmp_path):
    """A version is the interpreter, the first code and the modules; a second run does nothing."""
    program = tmp_path / "bin" / "vxlane"
    assert beside.install(program)[-1] == f"wrote {program}"
    assert program.read_bytes() == b"launcher"
    found = {str(file.relative_to(current(program))) for file in current(program).rglob("*")}
    assert found == {"lib", "lib/libc.so.6", "ld.so", "python", "start", "plugin"}
    assert os.access(current(program) / "ld.so", os.X_OK)
    assert beside.install(program) == []


def test_a_new_version_leaves_the_last_one(tmp_path, brought):
    """Calls that have begun go on with theirs; the one before that goes."""
    program = tmp_path / "bin" / "vxlane"
    beside.install(program)
    first = current(program)
    (brought / "python").write_bytes(b"second")
    beside.install(program)
    second = current(program)
    assert versions(program) == {first, second}
    (brought / "python").write_bytes(b"third")
    beside.install(program)
    assert versions(program) == {second, current(program)}
    assert (current(program) / "python").read_bytes() == b"third"


@pytest.mark.usefixtures("brought")
def test_what_was_damaged_is_written_anew(tmp_path):
    """Content and modes are what the name says."""
    program = tmp_path / "bin" / "vxlane"
    beside.install(program)
    for damage in (
        lambda file: file.write_bytes(b""),
        lambda file: file.chmod(0o644),
        lambda file: file.unlink(),
    ):
        damage(current(program) / "python")
        assert beside.install(program) == [f"wrote {current(program)}"]
        assert (current(program) / "python").read_bytes() == b"python"
        assert versions(program) == {current(program)}


def test_a_version_that_finds_no_room(tmp_path, brought, monkeypatch):
    """Nothing of it stays on a full disk, and calls find the version before."""
    program = tmp_path / "bin" / "vxlane"
    beside.install(program)
    before = current(program)
    (brought / "python").write_bytes(b"second")
    write = files.replace_durably

    def refuse(path, content, **mode):
        if path.name == "start":
            raise OSError(errno.ENOSPC, "no room", str(path))
        write(path, content, **mode)

    monkeypatch.setattr(files, "replace_durably", refuse)
    with pytest.raises(OSError, match="no room"):
        beside.install(program)
    assert current(program) == before
    assert versions(program) == {before}


@pytest.mark.usefixtures("brought")
def test_it_goes_as_a_whole(tmp_path):
    """Nothing is left of it, and a second time nothing is done."""
    program = tmp_path / "bin" / "vxlane"
    beside.install(program)
    assert interpreter.remove(program) == [f"removed {tmp_path / 'bin' / '.vxlane'}"]
    assert interpreter.remove(program) == []
    assert list(program.parent.iterdir()) == [program]


@pytest.fixture(scope="module")
def real(_machine, tmp_path_factory):
    """This machine's interpreter, made as the image's is, and the launcher."""
    made = tmp_path_factory.mktemp("real") / "interpreter"
    subprocess.run([sys.executable, "-I", DEPLOY / "interpreter", made], check=True)
    compile_ = ["cc", "-static", "-Os", "-D_GNU_SOURCE", "-o", made / "launcher"]
    subprocess.run([*compile_, DEPLOY / "launcher.c"], check=True)
    return made


def called(program, **environ):
    """What the plugin answers."""
    env = {"CNI_COMMAND": "VERSION", **environ}
    argv = [str(program)]
    done = subprocess.run(argv, input=b"{}", env=env, capture_output=True, check=False, cwd="/")
    return done.returncode, json.loads(done.stdout)


def test_it_is_started_from_wherever_it_lies(tmp_path, real, monkeypatch):
    """By its path or a link, copied, moved with all that is beside it, and whatever the loader is
    told.
    """
    monkeypatch.setattr(beside, "BROUGHT", real)
    beside.install(tmp_path / "first" / "vxlane")
    interpreter.copy(tmp_path / "first" / "vxlane", tmp_path / "bin" / "vxlane")
    shutil.rmtree(tmp_path / "first")
    (tmp_path / "bin").rename(tmp_path / "moved")
    link = tmp_path / "flannel"
    link.symlink_to(tmp_path / "moved" / "vxlane")
    hostile = {"LD_PRELOAD": "/none.so", "LD_LIBRARY_PATH": "/none", "PYTHONHOME": "/none"}
    for program, environ in ((tmp_path / "moved" / "vxlane", {}), (link, hostile)):
        status, answer = called(program, **environ)
        assert (status, answer["supportedVersions"][-1]) == (0, "1.1.0")


def test_nothing_of_the_host_is_read(tmp_path, real, monkeypatch):
    """No library, no module and no cache from elsewhere: what it opens lies beside it."""
    monkeypatch.setattr(beside, "BROUGHT", real)
    program = tmp_path / "bin" / "vxlane"
    beside.install(program)
    # Each module has been imported when the main role has failed for want of a subnet.
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_NETNS": "/x"}
    conf = b'{"cniVersion":"1.0.0","name":"n","type":"vxlane","delegate":{}}'
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    shutil.move(tmp_path / "bin", root / "bin")
    inside = f"mount --rbind /proc {root}/proc; exec chroot {root} /bin/vxlane"
    argv = ["unshare", "--mount", "sh", "-ec", inside]
    path = os.environ["PATH"]
    done = subprocess.run(
        argv, input=conf, env={**env, "PATH": path}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert json.loads(done.stdout)["code"] == 11


def test_an_interpreter_that_was_taken_away_has_words(tmp_path, real, monkeypatch):
    """The runtime gets an error of a plugin, with what to do."""
    monkeypatch.setattr(beside, "BROUGHT", real)
    program = tmp_path / "bin" / "vxlane"
    beside.install(program)
    (current(program) / "ld.so").unlink()
    status, answer = called(program)
    assert (status, answer["code"]) == (1, 5)
    assert answer["msg"] == (
        "vxlane: the interpreter beside it can't be started; run vxlane install again"
    )
    interpreter.remove(program)
    assert "the interpreter beside it is missing" in called(program)[1]["msg"]
