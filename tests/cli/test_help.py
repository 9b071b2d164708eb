# SPDX-License-Identifier: Apache-2.0
"""What `--help` and the shell's completion tell."""

import os
import re
import shlex
import subprocess

import click
import pytest

from vxlane.cli.main import cli
from vxlane.cli.man import commands
from vxlane.lab.agents import program

COMMANDS = dict(commands(cli, "vxlane"))


def parsed(words):
    """Have click parse a command line, down to its last command, without running it."""
    context = cli.make_context("vxlane", list(words))
    while isinstance(context.command, click.Group):
        words = [*context._protected_args, *context.args]
        if not words:
            return
        name, command, rest = context.command.resolve_command(context, words)
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples(name, monkeypatch):
    """Each command's help has two examples of itself or more, and click can parse each."""
    # Its default directories need root to be read, and need not be there.
    monkeypatch.setattr(click.Path, "convert", lambda _, value, *__: value)
    lines = (COMMANDS[name].epilog or "").splitlines()[2:]
    calls = [call for line in lines for call in re.split(r" \| | && ", line.strip())]
    own = [call for call in calls if f"{call} ".startswith(f"{name} ")]
    assert len(own) >= 2
    for call in own:
        parsed(shlex.split(call)[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_whole_sentences(name):
    """The help of a command and of each of its options ends in a full stop."""
    command = COMMANDS[name]
    texts = [command.help, *(p.help for p in command.params if isinstance(p, click.Option))]
    assert [text for text in texts if text and not text.rstrip().endswith(".")] == []


def completed(line):
    """What the shell offers behind `line`, by click's protocol for bash."""
    words = line.split(" ")
    env = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    env |= {"_VXLANE_COMPLETE": "bash_complete"}
    command = [program("vxlane")]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True)
    return {offer.partition(",")[2] for offer in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("vxlane sta", {"stats", "status"}),
        ("vxlane lab ", {"demo", "down", "exec", "status", "up"}),
        ("vxlane flows --j", {"--json"}),
        ("vxlane agent --mode ", {"own", "adopt"}),
        ("vxlane agent --kube-s", {"--kube-subnet-mgr"}),
    ],
)
def test_the_shell_completes(line, offers):
    """Commands, options and values are completed."""
    assert completed(line) == offers


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell):
    """`_VXLANE_COMPLETE=<shell>_source vxlane` prints what that shell is to source."""
    env = os.environ | {"_VXLANE_COMPLETE": f"{shell}_source"}
    shown = subprocess.run([program("vxlane")], env=env, capture_output=True, text=True, check=True)
    assert f"_VXLANE_COMPLETE={shell}_complete" in shown.stdout
