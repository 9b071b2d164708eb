# SPDX-License-Identifier: Apache-2.0
"""The command lines in documents are ones that vxlane reads."""

from __future__ import annotations

import itertools
import re
import shlex

import click
import pytest
from markdown_files import DOCUMENTS

from vxlane.cli.main import cli

_START = re.compile(r"(?:^\s*|-- |&& )(?:sudo )?(?:[\w./]+/)?vxlane (?=[a-z-])(?P<rest>.*)")
_END = re.compile(r"\s#\s.*|\s[|>&;].*|;$")
_OPTION = re.compile(r"--[a-z][a-z-]+")

OF_OTHERS = {
    "--set": "helm",
    "--fast": "scripts/test",
    "--full": "pytest",
    "--rootfs": "deploy/build",
    "--test": "scripts/setup",
    "--dport": "iptables",
    "--syn": "iptables",
}
"""Options that documents name by themselves and that belong to other programs."""

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=str)


def command_lines(document):
    """What follows `vxlane` wherever it is run: in blocks of code, and between backquotes."""
    lines = [line for block in document.blocks() for line in _joined(block).splitlines()]
    for line in (*lines, *document.spans()):
        yield from _commands(line)


def _commands(line):
    """The commands of one line: behind `--` there may be another one."""
    if found := _START.search(line):
        yield _END.sub("", found["rest"])
        yield from _commands(found["rest"])


def _joined(block):
    """A block with continued lines made one."""
    return re.sub(r"\\\n\s*", " ", block)


def spelled_out(words):
    """`lab up|down` as `lab up` and `lab down`, as far as commands go."""
    return itertools.product(*(word.split("|") if "--" not in word else [word] for word in words))


def check(words):
    """Parse `words` as vxlane does; click's error if it does not."""
    command, context = cli, click.Context(cli, info_name="vxlane")
    words = list(words)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"there is no command {words[0]!r}")
        command, words = found, words[1:]
    if words and words != ["--help"]:
        command.make_context(command.name, words)


@every_document
def test_commands_are_read(document):
    """Each `vxlane ...` in a document is a command with options that it has."""
    for line in command_lines(document):
        for words in spelled_out(shlex.split(line)):
            try:
                check(words)
            except click.ClickException as error:
                pytest.fail(f"vxlane {line}: {error.format_message()}")


@every_document
def test_options_exist(document):
    """An option that is named by itself belongs to some command of vxlane."""
    known = set(_options(cli)) | OF_OTHERS.keys()
    named = {span.split()[0].split("=")[0] for span in document.spans() if _OPTION.match(span)}
    assert not named - known


def _options(command):
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from _options(command.get_command(context, name))
