# SPDX-License-Identifier: Apache-2.0
"""The man page vxlane(8) as roff, written from the commands themselves.

    python -m vxlane.cli.man >docs/vxlane.8

Owns the page's form and the sections that no command has. Reads click's objects instead of their
help, whose wording differs between click's versions.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping

import click

from vxlane.cli.main import cli
from vxlane.util.places import STATE

_DATE = "2026-11-30"
"""When the sections below were last written."""

_DESCRIPTION = """
vxlane makes flannel's VXLAN overlay fast without changing what it is. eBPF programs take a packet
past bridge, netfilter and flannel.1 where the result is the same. The kernel path stays
complete: what is unknown, aged or unusual takes it, and so does everything after vxlane has ended.

The agent runs on each node. Without an agent a node keeps the kernel path, and other nodes' agents
send to it as to any node of flannel.
"""

_EXIT_STATUS = """
0: it succeeded. 1: it failed, and one sentence on standard error says why, or it found what its
description names. 2: the command line is wrong; or vxlane doctor failed, whose 1 is a finding.
"""

_ENVIRONMENT = {
    "VXLANE_STATE_DIR": "The state directory of the agent that a command speaks with.",
    "COLUMNS": "How wide tables are. Without it they are as wide as the terminal. In a pipe or a "
    "file they have no limit.",
    "VXLANE_CNI_CONF_DIR": "See --cni-conf-dir.",
    "VXLANE_CNI_BIN_DIR": "See --cni-bin-dir.",
    "VXLANE_CNI_CACHE_DIR": "See --cni-cache-dir.",
    "VXLANE_HOST_ROOT": "See --host-root.",
    "FLANNELD_NAME": "vxlane agent reads each of its flags from there as flanneld does: "
    "--kube-subnet-mgr from FLANNELD_KUBE_SUBNET_MGR. The command line comes first.",
    "NODE_NAME": "See --node-name.",
}

_FILES = {
    str(STATE): "The state directory: pinned programs and maps (bpf/), the agent's socket "
    "(agent.sock), its status (agent.json), and what detach undoes (undo).",
    "/run/flannel/subnet.env": "The node's network, as CNI plugins read it.",
    "/opt/cni/bin/vxlane": "The CNI plugin.",
    "PREFIX/share/doc/vxlane": "Documents. verdicts/ has a page on each verdict, and its README.md "
    "says why a flow is not bypassed; json.md says what --json prints.",
}

_SEE_ALSO = "ip-link(8), bridge(8), tc-bpf(8), conntrack(8)"


def page() -> str:
    """The whole page."""
    sections = {
        "NAME": ["vxlane \\- an eBPF fast path for flannel's VXLAN overlay"],
        "SYNOPSIS": [".B vxlane", _roff("COMMAND [OPTIONS]")],
        "DESCRIPTION": _paragraphs(_DESCRIPTION),
        "COMMANDS": _commands(cli, "vxlane"),
        "EXIT STATUS": _paragraphs(_EXIT_STATUS),
        "ENVIRONMENT": _entries(_ENVIRONMENT),
        "FILES": _entries(_FILES),
        "SEE ALSO": [_roff(_SEE_ALSO)],
    }
    head = '.\\" Written by vxlane.cli.man from the commands; do not edit.'
    lines = [head, f".TH VXLANE 8 {_DATE} vxlane"]
    for title, body in sections.items():
        lines += [f".SH {title}", *body]
    return "\n".join(lines) + "\n"


def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below `group`, depth first, by what is typed to run it."""
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        yield f"{name} {word}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")


def _commands(group: click.Group, name: str) -> Iterator[str]:
    for words, command in commands(group, name):
        arguments = (p for p in command.params if isinstance(p, click.Argument))
        shown = [words, "[OPTIONS]", *(argument.human_readable_name for argument in arguments)]
        yield f".SS {_roff(' '.join(shown))}"
        told = (command.help, command.epilog)
        yield from _paragraphs("\n\n".join(inspect.cleandoc(text) for text in told if text))
        yield from _options(command)


def _options(command: click.Command) -> Iterator[str]:
    """The options below the titles of their groups, those without a group first."""
    groups: dict[str, dict[str, str]] = {"": {}}
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            group = groups.setdefault(getattr(option, "group", ""), {})
            group[_names(option)] = _meaning(option)
    for title, meanings in groups.items():
        if title:
            yield from (".PP", f".I {_roff(title)}")
        yield from _entries(meanings)


def _names(option: click.Option) -> str:
    """`--metrics-port INTEGER`, `--strict, --no-strict`."""
    shown = ", ".join((*option.opts, *option.secondary_opts))
    return shown if option.is_flag else f"{shown} {_value(option)}"


def _value(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    return option.type.name.split()[0].upper()


def _meaning(option: click.Option) -> str:
    """What the option does, its default where the help shows one, and its variable."""
    parts = [option.help or ""]
    if option.show_default:
        parts.append(f"Default: {_default(option)}.")
    if option.envvar:
        parts.append(f"Environment: {option.envvar}.")
    return " ".join(parts)


def _default(option: click.Option) -> str:
    """As it is typed: of a switch the name, and not True."""
    if option.is_flag:
        (name, *_) = option.opts if option.default else option.secondary_opts
        return name
    default = option.default
    return " ".join(map(str, default if isinstance(default, (list, tuple)) else [default]))


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of `text`; after a backspace lines are kept, as in click's help."""
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        is_kept = paragraph.startswith("\b")
        if number:
            yield ".PP"
        if is_kept:
            yield ".nf"
        yield from (_roff(line) for line in paragraph.splitlines() if line != "\b")
        if is_kept:
            yield ".fi"


def _entries(meanings: Mapping[str, str]) -> Iterator[str]:
    """Names in bold, each with its meaning below."""
    for name, meaning in meanings.items():
        yield from (".TP", f".B {_roff(name)}", _roff(meaning))


def _roff(text: str) -> str:
    """`text` with what roff would read as its own taken as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped


if __name__ == "__main__":
    sys.stdout.write(page())
