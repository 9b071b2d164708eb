# SPDX-License-Identifier: Apache-2.0
"""What commands share: JSON or text, the examples in their help, numbers, paths, and root.

Imports click and errors only, since every command imports it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vxlane.errors import ConfigError, OptionError, VxlaneError

Json = dict[str, Any]

_LONGEST = 1e9

as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON. docs/json.md explains its keys."
)


class Number(click.FloatRange):
    """Seconds, in a range. "nan" compares with nothing, so click has it in any; nothing waits for
    "inf", or for more than 30 years.
    """

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number. BadParameter: it is none, or out of the range."""
        number = float(super().convert(value, param, ctx))
        if not number <= _LONGEST:
            self.fail(f"{value!r} is not a number of seconds up to {_LONGEST:,.0f}", param, ctx)
        return number


class PathName(click.Path):
    """A path. An empty one would be the current directory, which nobody means."""

    def __init__(
        self, *, file_okay: bool = True, dir_okay: bool = True, readable: bool = True
    ) -> None:
        super().__init__(file_okay=file_okay, dir_okay=dir_okay, readable=readable, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. BadParameter: it is empty, or of the wrong kind."""
        if not str(value):
            self.fail("the name is empty; give a path, or leave the option out", param, ctx)
        return super().convert(value, param, ctx)


def filled(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
    """A callback. BadParameter: the text is empty, as a script's variable is that has no value."""
    if text is not None and not text.strip():
        raise click.BadParameter("it is empty; give a value, or leave the option out")
    return text


PRIVATE = PathName(readable=False)
"""A path of root's own. click looks at paths before the command can say that it needs root."""


def emit(document: Any, render: Callable[[Any], str], *, as_json: bool) -> None:
    """Print `document` as JSON, or as the text that `render` makes of it."""
    click.echo(json.dumps(document, indent=2) if as_json else render(document))


def examples(*lines: str) -> str:
    """The epilog of a command's help."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def is_alone(context: click.Context) -> bool:
    """Whether no command of its own follows a group's name. UsageError: one would not heed the
    options that stand before it.
    """
    if context.invoked_subcommand is None:
        return True
    for option in context.command.params:
        if context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE:
            name = repr(context.invoked_subcommand)
            advice = f"leave it out: options of {name} stand behind it"
            raise click.UsageError(f"{option.opts[-1]} means nothing before {name}; {advice}")
    return False


def need_root() -> None:
    """ConfigError unless root runs this."""
    if os.geteuid() != 0:
        raise ConfigError("this needs root; run it again with sudo")


def need_writable(*places: Path | str | None) -> None:
    """OptionError: a file that is to be written at the end can't be, or is two documents' at once.

    `-` is standard output. What is there stays as it is until the end.
    """
    paths: list[Path] = []
    for place in places:
        if place is None:
            continue
        path = Path(place).resolve()
        if path in paths:
            raise OptionError(f"two documents can't go to {place}; name another file for one")
        paths.append(path)
        if str(place) == "-":
            continue
        if path.is_dir():
            raise OptionError(f"can't write {place}: it is a directory; name a file in it")
        # A shell's >(...) is there, but the pipe that its link names is in no directory.
        if Path(place).exists():
            if not os.access(place, os.W_OK):
                raise OptionError(f"can't write {place}: permission denied; name another place")
            continue
        if not path.parent.is_dir():
            raise OptionError(f"can't write {place}: there is no directory {path.parent}")
        try:
            # Root has every permission, and can make no file in /proc or /sys all the same.
            path.open("xb").close()
            path.unlink()
        except OSError as error:
            raise OptionError(
                f"can't write {place}: {error.strerror}; name another place"
            ) from None


def need_plain(place: Path) -> None:
    """OptionError: it is there and no plain file, such as a device, which a file would replace."""
    if place.exists() and not place.is_file():
        raise OptionError(f"{place} is not a plain file; name another")


def write_document(place: Path | str | None, content: str) -> None:
    """Write to `place`, if there is one; `-` is standard output. VxlaneError: it can't be."""
    if place is None:
        return
    try:
        with click.open_file(str(place), "w", encoding="utf-8") as output:
            output.write(content)
    except OSError as error:
        raise VxlaneError(f"can't write {place}: {error.strerror}") from None
