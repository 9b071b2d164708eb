# SPDX-License-Identifier: Apache-2.0
"""Reads a command line and an environment as Go programs do, flanneld among them.

Flags have one dash or two, and `--flag=false` switches a flag off. Owns the spelling only.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import click

_GO_FLAG = re.compile(r"-{1,2}(?P<name>[a-zA-Z][\w-]*)(?:=(?P<value>.*))?", re.DOTALL)
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
"""What Go's strconv.ParseBool takes, and so flanneld."""


class GoBool(click.types.BoolParamType):
    """A switch in the environment, as flanneld reads it.

    click would take "yes" and "on" too, and an operator's FLANNELD_IP_MASQ=yes, which flanneld
    reports and leaves out, would masquerade from the day vxlane takes over.
    """

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bool:
        """Go's true or false; anything else is refused."""
        if isinstance(value, bool):
            return value
        if value in _TRUE or value in _FALSE:
            return value in _TRUE
        known = ", ".join(sorted(_TRUE | _FALSE))
        reason = f"{value!r} is neither true nor false; flanneld knows {known}"
        raise click.BadParameter(reason, ctx=ctx, param=param)


class GroupedOption(click.Option):
    """An option that the help shows below the title of its group."""

    def __init__(self, *args: Any, group: str, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.group = group


class GoFlags(click.Command):
    """A command that also reads flags as Go programs spell them, and shows them in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group below its title; what has no group comes last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                title = getattr(parameter, "group", "Other options")
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Respell, then let click parse."""
        switches = {
            option.lstrip("-")
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and parameter.is_flag
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        return super().parse_args(ctx, list(_respelt(args, switches)))


def _respelt(args: list[str], switches: set[str]) -> Iterator[str]:
    """`-name` as `--name`; `--switch=false` as `--no-switch`; values as they are."""
    rest = iter(args)
    for argument in rest:
        flag = _GO_FLAG.fullmatch(argument)
        if not flag or argument == "-h":
            yield argument
            continue
        name, value = flag["name"], flag["value"]
        if name not in switches:
            yield f"--{name}" if value is None else f"--{name}={value}"
            if value is None:
                yield from itertools.islice(rest, 1)
        elif value is None or value in _TRUE:
            yield f"--{name}"
        elif value in _FALSE:
            yield f"--no-{name}"
        else:
            raise click.BadParameter(f"{value!r} is neither true nor false", param_hint=argument)
