# SPDX-License-Identifier: Apache-2.0
"""The man page. That docs/vxlane.8 is the one of these commands is held by scripts/lint."""

import subprocess
from pathlib import Path

import click
import pytest

from vxlane.cli.main import cli
from vxlane.cli.man import commands, page

PAGE = Path(__file__).parents[2] / "docs/vxlane.8"


@pytest.mark.usefixtures("_machine")  # mandoc is a package of the distribution
def test_it_is_good_roff():
    """The page gives mandoc nothing to warn of."""
    linted = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", PAGE], check=False, capture_output=True, text=True
    )
    assert (linted.returncode, linted.stdout) == (0, "")


def test_it_names_every_command_and_option():
    """Every command has a section, and every option that is not hidden an entry in it."""
    _, *sections = page().replace("\\-", "-").split(".SS ")
    by_name = {section.partition(" [OPTIONS]")[0]: section for section in sections}
    for name, command in commands(cli, "vxlane"):
        assert name in by_name
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                missing = [o for o in option.opts if f" {o}" not in by_name[name]]
                assert not missing


@pytest.mark.parametrize(
    "entry",
    [
        ".B --inner, --outer\nLeave the tunnel's headers out, or keep them. Default: --inner.",
        ".B --verdict VERDICT\n",
    ],
)
def test_an_entry_is_as_it_is_typed(entry):
    """A switch has its name for a default, and an option its own word for a value."""
    assert entry in page().replace("\\-", "-")


def test_it_is_found_in_a_checkout():
    """The help names vxlane(8), and the README where that is while it is not installed."""
    readme = (PAGE.parents[1] / "README.md").read_text()
    assert "vxlane(8)" in str(cli.help)
    assert "`man docs/vxlane.8`" in readme
