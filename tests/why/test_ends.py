# SPDX-License-Identifier: Apache-2.0
"""How a person names the ends of a flow."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from vxlane.datapath.records import IPAddress
from vxlane.errors import ConfigError
from vxlane.pods.names import PodNames
from vxlane.util.five_tuple import FiveTuple
from vxlane.why.ends import End, Question, parse_end

HERE, THERE = IPv4Address("10.42.1.2"), IPv4Address("10.42.2.2")
NAMES = PodNames({"shop/web-0": [HERE]})


def find(word: str) -> IPAddress:
    """As on a node with one named pod."""
    return NAMES.find(word, {})


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("10.42.2.2", End(THERE)),
        ("10.42.2.2:80", End(THERE, 80)),
        ("web-0", End(HERE)),
        ("web-0:0", End(HERE, 0)),
        ("shop/web-0:65535", End(HERE, 65535)),
    ],
)
def test_an_end(text, end):
    """An end is an address or a name, with a port or without."""
    assert parse_end(text, find) == end


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("10.42.2.2:http", "'http' is not a port"),
        ("10.42.2.2:65536", "'65536' is not a port"),
        ("10.42.2.2:-1", "'-1' is not a port"),
        ("10.42.2.2:", "'' is not a port"),
        ("10.42.2.2:²", "'²' is not a port"),
        ("fd00::1", "is an IPv6 address; only IPv4 is bypassed"),
        ("web-1", "'web-1': no pod of this node is known by that name; give its address"),
        ("", "'': no pod of this node is known by that name"),
        ("10.42.2.256", "no pod of this node is known by that name"),
    ],
)
def test_no_end(text, complaint):
    """What is no end is refused with what is wrong with it."""
    with pytest.raises(ConfigError, match=complaint):
        parse_end(text, find)


@pytest.mark.parametrize(
    ("question", "sent", "is_meant"),
    [
        (Question(End(HERE), End(THERE)), (40000, 80, 6), True),
        (Question(End(HERE), End(THERE), 17), (40000, 80, 6), False),
        (Question(End(HERE, 40000), End(THERE, 80)), (40000, 80, 6), True),
        (Question(End(HERE, 40001), End(THERE)), (40000, 80, 6), False),
        (Question(End(HERE), End(THERE, 81)), (40000, 80, 6), False),
        (Question(End(THERE), End(HERE)), (40000, 80, 6), False),
        # Of an echo: its identifier, at whichever end it is given.
        (Question(End(HERE), End(THERE, 77)), (77, 8, 1), True),
        (Question(End(HERE), End(THERE, 8)), (77, 8, 1), False),
    ],
)
def test_which_flows_are_meant(question, sent, is_meant):
    """A question is about every flow that its addresses, ports and protocol leave open."""
    assert question.is_about(FiveTuple(HERE, THERE, *sent)) is is_meant


def test_what_two_ports_name():
    """Two ports name a flow of each protocol that is asked about, one port names none."""
    both = Question(End(HERE, 40000), End(THERE, 80))
    assert [each.protocol for each in both.tuples()] == [6, 17]
    udp = Question(End(HERE, 40000), End(THERE, 80), 17)
    assert udp.tuples() == [FiveTuple(HERE, THERE, 40000, 80, 17)]
    assert Question(End(HERE), End(THERE, 80)).tuples() == []
