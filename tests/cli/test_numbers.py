# SPDX-License-Identifier: Apache-2.0
"""Numbers that a command can't work with are refused before it begins."""

import click
import pytest

from vxlane.cli.agent import agent
from vxlane.cli.lab import lab


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (agent, ("--metrics-port", "65536")),
        (agent, ("--metrics-port", "-1")),
        (agent, ("--healthz-port", "65536")),
        (agent, ("--iptables-resync", "0")),
        (agent, ("--max-flows", "4294967296")),
        (lab.commands["up"], ("--nodes", "0")),
        (lab.commands["up"], ("--pods", "-1")),
        (lab.commands["up"], ("--pods", "254")),
        (lab.commands["up"], ("--kernel-nodes", "-1")),
        (lab.commands["demo"], ("--seconds", "0")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value.name,
)
def test_a_number_out_of_range_is_refused(command, words):
    """A port that no socket has, a time of zero, a size that no map has."""
    with pytest.raises(click.BadParameter, match="is not in the range"):
        command.make_context(command.name, list(words))


@pytest.mark.parametrize("word", ["nan", "inf", "1e300"])
def test_what_is_no_number_is_refused(word):
    """Python reads all as numbers, "nan" is in every range of click's, and none can be waited."""
    for command, option in ((agent, "--revalidate"), (lab.commands["demo"], "--seconds")):
        with pytest.raises(click.BadParameter, match=f"'{word}' is not a number of seconds"):
            command.make_context(command.name, [option, word])
