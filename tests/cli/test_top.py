# SPDX-License-Identifier: Apache-2.0
"""The live view of `vxlane top`, as a terminal shows it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vxlane.cli import top as command
from vxlane.cli import top_screen
from vxlane.cli.top import top
from vxlane.cli.top_screen import Choice
from vxlane.errors import ConfigError
from vxlane.show.rates import Order

RATES = {
    f"{way}_{unit}_per_second": 12_345.0 for way in ("tx", "rx") for unit in ("packets", "bytes")
}


def document(rows=40, slow=9, **changes):
    """A node on which all is busy."""
    return {
        "seconds": 2.0,
        "bypassing": True,
        "share": 0.934,
        "packets_per_second": 250_000.0,
        "bypassed_per_second": 233_500.0,
        "verdicts": [
            {"program": "from_pod", "verdict": f"verdict_{n}", "kind": "kernel_path", "share": 0.01}
            | {"packets_per_second": 999.4, "bytes_per_second": 1.5e9}
            for n in range(rows)
        ],
        "pods": [
            {"name": f"a-deployment-with-a-long-name-{n}", "guarded": [], **RATES}
            for n in range(rows)
        ],
        "peers": [{"name": f"10.42.{n}.0/24", "reachable": n != 1, **RATES} for n in range(rows)],
        "programs": [{"program": "from_pod", "runs_per_second": 5.0, "ns_per_run": 187.4}],
        "notes": ["Linux 6.6 may not count"],
        "slow": [{"what": f"from_pod what_{n}", "why": "because " * 20} for n in range(slow)],
        **changes,
    }


def drawn(shown, width=80, height=24, match="", *, styled=False):
    """The lines on a screen of that size."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=styled)
    console.print(top_screen.view(shown, Choice(Order.PACKETS, match), width, height))
    return file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 50), (200, 24)])
@pytest.mark.parametrize("slow", [0, 1, 9])
def test_the_view_fits_the_terminal(width, height, slow):
    """Every line, also with more rows and longer names than there is room for."""
    lines = drawn(document(slow=slow), width, height)
    assert height - 2 <= len(lines) <= height
    assert max(map(len, lines)) <= width


def test_the_text_has_each_part(monkeypatch):
    """A table each, as wide as the terminal; those without rows are left out."""
    monkeypatch.setenv("COLUMNS", "80")
    text = command._text(document(rows=1, slow=1) | {"programs": []})
    heads = [part.split()[0] for part in text.split("\n\n")]
    assert heads == ["93.4%", "SLOW", "PROGRAM", "POD", "PEER", "note:"]
    assert max(map(len, command._text(document(rows=1, slow=0)).splitlines())) <= 80


def test_a_view_of_80_by_24_has_each_part():
    """The share, ns a packet, what is slow, verdicts, pods, peers, and the keys."""
    text = "\n".join(drawn(document()))
    for part in (
        "93.4% bypassed  234k of 250k packets/s",
        "ns a packet: from_pod 187",
        "from_pod what_0: because",
        "from_pod verdict_0",
        "1.5G",
        "long-name-0 ",
        "10.42.0.0/24",
        "12.3k",
        "sorted by packets: p packets",
    ):
        assert part in text


def test_what_is_slow_is_red():
    """So is a peer that can't be reached, and a share below a half."""
    red = "\x1b[1;31m"
    lines = drawn(document(share=0.4, verdicts=[]), styled=True)
    assert [line for line in lines if red in line and "what_0" in line]
    assert [line for line in lines if red in line and "10.42.1.0/24" in line]
    assert [line for line in lines if red in line and "40.0% bypassed" in line]
    assert not [line for line in lines if red in line and "10.42.2.0/24" in line]


def test_a_node_that_does_nothing_says_so():
    """No share, no reasons, and how to have ns counted."""
    idle = document(rows=0, slow=0, share=None, programs=[])
    text = "\n".join(drawn(idle))
    assert "no packets" in text
    assert "nothing is slow" in text
    assert "kernel.bpf_stats_enabled" in text
    assert "nothing is bypassed" in drawn(idle | {"bypassing": False})[0]


def test_without_rich_the_way_out_is_named(monkeypatch):
    """The live view alone needs it, in the environment that this is run from."""
    monkeypatch.setitem(command.sys.modules, "vxlane.cli.top_screen", None)
    way_out = f"{command.sys.executable} -m pip install rich, or use --once"
    with pytest.raises(ConfigError, match=way_out):
        command._live_view()


@pytest.mark.parametrize(("term", "is_screen"), [("xterm", True), ("dumb", False)])
def test_a_dumb_terminal_is_told_as_a_pipe_is(monkeypatch, term, is_screen):
    """Nothing would be drawn there."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(command.sys.stdout, "isatty", lambda: True, raising=False)
    assert command._is_screen() is is_screen


def test_keys_sort_filter_and_end():
    """While a filter is typed, letters are its letters; Enter keeps it and Esc takes it away."""
    choice = Choice(Order.PACKETS)
    assert choice.press("b")
    assert choice.press("")
    assert choice.order is Order.BYTES
    for key in "/web-qx\x7f":
        assert choice.press(key)
    assert (choice.match, choice.is_typing, choice.order) == ("web-q", True, Order.BYTES)
    assert "web-q_" in choice.line
    assert choice.press("\n")
    assert choice.press("n")
    assert (choice.match, choice.order) == ("web-q", Order.NAME)
    assert "only 'web-q'" in choice.line
    for key in "/\x1b":
        assert choice.press(key)
    assert (choice.match, choice.is_typing) == ("", False)
    assert not choice.press("q")
    assert not Choice(Order.NAME, is_typing=True).press("\x03")


def test_a_filter_leaves_only_its_rows():
    """Of pods, peers and verdicts alike."""
    text = "\n".join(drawn(document(slow=0), match="Name-17"))
    assert "name-17" in text
    for other in ("long-name-0", "10.42.0.0/24", "verdict_0"):
        assert other not in text


def test_the_keys_are_the_orders():
    """Each order has a key, and --sort its name."""
    assert set(top_screen.KEYS.values()) == set(Order)
    (option,) = [one for one in top.params if one.name == "sort"]
    assert set(option.type.choices) == {order.value for order in Order}
