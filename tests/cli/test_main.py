# SPDX-License-Identifier: Apache-2.0
"""The command line's manners."""

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vxlane.cli import main as cli
from vxlane.cli.common import need_writable
from vxlane.errors import ConfigError, KernelError, OptionError, SourceError, ToolError
from vxlane.lab.agents import program
from vxlane.util.places import STATE, STATE_VARIABLE, state_directory


def run(*arguments):
    """Run vxlane, both outputs kept."""
    command = [program("vxlane"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(flag):
    """Both help flags print the table of commands."""
    shown = run(flag).stdout
    assert all(f"\n  {name} " in shown for name in cli.COMMANDS)


def test_help_imports_no_command():
    """The help costs click and nothing else of vxlane."""
    code = (
        "import sys; from vxlane.cli import main as cli\n"
        "try: cli.cli.main(['--help'])\n"
        "except SystemExit: print([m for m in sys.modules if m.startswith('vxlane.')])"
    )
    shown = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert shown.splitlines()[-1] == "['vxlane.cli', 'vxlane.errors', 'vxlane.cli.main']"


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_commands_exist(name):
    """Every line of the table leads to a command with help of its own."""
    module, _, attribute = cli.COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert command.name == name
    assert command.help


def test_version():
    """The version is the distribution's."""
    assert run("--version").stdout == "vxlane 0.1.0\n"


def test_an_error_is_one_sentence():
    """What goes wrong is one line on stderr and status 1, with no traceback."""
    done = run("lab", "status", "--name", "nosuch")
    assert (done.returncode, done.stdout) == (1, "")
    sentence = 'vxlane: there is no lab "nosuch"; make it with: vxlane lab up --name nosuch'
    advice = "; vxlane needs root, run it again with sudo" if os.geteuid() else ""
    assert done.stderr == f"{sentence}{advice}\n"


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/run/vxlane"), True),
        (KernelError("open pin x", errno.EPERM), True),
        (ToolError("iptables: Permission denied"), True),
        (KernelError("read x", errno.ENOENT), False),
        (ConfigError("there is no kubeconfig here"), False),
        (SourceError("https://host: connection refused"), False),
        (ConfigError("this needs root; use sudo"), False),
    ],
)
def test_root_is_advised_where_it_may_help(
    error: Exception, may: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user whose file is not there, or whose cluster does not answer, needs no sudo."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli._may_lack_root(error) is may
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not cli._may_lack_root(error)


@pytest.mark.parametrize(
    "words",
    [
        ("agent", "--mode", "adopt"),
        ("detach",),
        ("doctor",),
        ("doctor", "--json"),
        ("lab", "down"),
        ("lab", "exec", "lab-node1", "true"),
        ("lab", "up"),
        ("status",),
        ("status", "--json"),
    ],
    ids=" ".join,
)
def test_what_needs_root_says_so_and_nothing_else(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One sentence and status 1, also where root's own directory can't be looked into."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "access", lambda *_args, **_more: False)
    monkeypatch.setattr(sys, "argv", ["vxlane", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (1, "")
    assert said.err == "vxlane: this needs root; run it again with sudo\n"


def test_an_output_that_is_full_has_a_sentence() -> None:
    """What can't be written ends with status 1 and one line, not with a traceback."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [program("vxlane"), "lab", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "vxlane: standard output: No space left on device\n"


def test_an_output_that_does_not_block() -> None:
    """Into a full pipe that another program made non-blocking all goes, when there is room."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = os.write(writing, bytes(1 << 20))
    with os.fdopen(reading, "rb") as reader:
        with subprocess.Popen([program("vxlane"), "--version"], stdout=writing) as process:
            os.close(writing)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            assert reader.read()[filled:] == b"vxlane 0.1.0\n"
        assert process.returncode == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_a_shell_has_closed(closed: str, tmp_path: Path) -> None:
    """A closed standard file is one that says and takes nothing, here and for children."""
    code = (
        "import os, pathlib; from vxlane.cli import main\n"
        "main.cli.main = lambda **_: pathlib.Path('open').write_text("
        "repr([os.path.exists(f'/proc/self/fd/{fd}') and not os.isatty(fd) for fd in range(3)]))\n"
        "main.main()"
    )
    shell = f'exec "$0" -c "$1" {closed}'
    done = subprocess.run(["sh", "-c", shell, sys.executable, code], check=False, cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "open").read_text() == "[True, True, True]"


def test_a_closed_output_has_no_traceback(tmp_path: Path) -> None:
    """What looks whether its output is a terminal finds none."""
    env = os.environ | {STATE_VARIABLE: str(tmp_path)}
    command = ["sh", "-c", 'exec "$0" top >&-', program("vxlane")]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, env=env)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("json", "place"), [("-", "-"), ("x", "x"), ("x", "./x")])
def test_two_documents_are_not_one_output(json: str, place: str) -> None:
    """JSON with a page of HTML before it could be read by nobody, and in a file one is lost."""
    done = run("profile", "--json", json, "--html", place)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"two documents can't go to {place}; name another file" in done.stderr


def test_a_shells_pipe_is_an_output(tmp_path: Path) -> None:
    """Of `--json >(jq .)` the link in /dev/fd names nothing in a directory; a link to a file that
    is not there yet is that file.
    """
    reader, writer = os.pipe()
    (tmp_path / "link").symlink_to("file")
    try:
        need_writable(f"/dev/fd/{writer}", tmp_path / "link")
        with pytest.raises(OptionError, match="two documents"):
            need_writable(f"/dev/fd/{writer}", f"/proc/self/fd/{writer}")
    finally:
        os.close(reader)
        os.close(writer)
    assert [each.name for each in tmp_path.iterdir()] == ["link"]


@pytest.mark.parametrize("words", [("profile", "--json"), ("compile",)])
def test_a_wrong_word_is_status_2(words: tuple[str, ...], tmp_path: Path) -> None:
    """An option's value that means nothing is one sentence and status 2, as one of click's is."""
    place = tmp_path / "none" / "x.json"
    done = run(*words, str(place))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"vxlane: can't write {place}: there is no directory")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("flows", "--slow", "flush"), "--slow"),
        (("flows", "--json", "flush"), "--json"),
        (("bench", "--quick", "compare", "a", "b"), "--quick"),
        (("capture", "-w", "x", "merge", "y"), "--write"),
    ],
)
def test_an_option_before_a_command_is_not_overlooked(words: tuple[str, ...], option: str) -> None:
    """It is the group's, and the command that follows it has its own."""
    done = run(*words)
    assert done.returncode == 2
    assert f"{option} means nothing before " in done.stderr
    assert "put it behind" not in done.stderr  # most are the group's alone


def test_an_empty_state_directory_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the agent; else commands would look into whatever directory they are called in."""
    monkeypatch.setenv(STATE_VARIABLE, "")
    assert state_directory() == STATE
