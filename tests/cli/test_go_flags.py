# SPDX-License-Identifier: Apache-2.0
"""The agent's options in flanneld's spelling."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click
import pytest

from vxlane.agent.run import _serve
from vxlane.agent.server.status import StatusStore
from vxlane.cli.agent import agent
from vxlane.cli.go_flags import _respelt


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["-ip-masq"], ["--ip-masq"]),
        (["--ip-masq=false"], ["--no-ip-masq"]),
        (["-ip-masq=T", "--iface=eth0"], ["--ip-masq", "--iface=eth0"]),
        (["-iface", "eth0"], ["--iface", "eth0"]),
        (["-etcd-password", "-secret"], ["--etcd-password", "-secret"]),
        (["-v=4"], ["--v=4"]),
        (["-v", "4", "-h"], ["--v", "4", "-h"]),
    ],
)
def test_flags_as_go_spells_them(given: list[str], read: list[str]) -> None:
    """One dash or two, `=` for switches, and values that look like flags stay values."""
    assert list(_respelt(given, {"ip-masq"})) == read


def values(*arguments: str) -> dict[str, Any]:
    """What the agent would run with."""
    context = agent.make_context("agent", list(arguments))
    return context.params


@pytest.mark.parametrize(
    ("word", "value"), [("1", True), ("T", True), ("true", True), ("0", False), ("FALSE", False)]
)
def test_switches_of_the_environment_are_gos(
    monkeypatch: pytest.MonkeyPatch, word: str, value: object
) -> None:
    """FLANNELD_IP_MASQ is true or false by the words that Go's ParseBool knows."""
    monkeypatch.setenv("FLANNELD_IP_MASQ", word)
    assert values()["ip_masq"] is value


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable leaves a switch at its default, as flanneld does."""
    monkeypatch.setenv("FLANNELD_IPTABLES_FORWARD_RULES", "")
    assert values()["iptables_forward_rules"] is True


@pytest.mark.parametrize("word", ["yes", "on", "y", "tRUE", "2"])
def test_other_words_are_refused(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """What flanneld does not take for true, vxlane does not either: it is refused by name."""
    monkeypatch.setenv("FLANNELD_IP_MASQ", word)
    with pytest.raises(click.BadParameter, match=f"'{word}' is neither true nor false") as raised:
        values()
    assert "--ip-masq" in raised.value.format_message()


def test_a_port_below_zero_is_off_as_in_flanneld() -> None:
    """Flanneld answers probes if its port is above 0."""
    with contextlib.ExitStack() as stack:
        _serve(values("--healthz-port", "-1"), StatusStore(Path("none")), stack)


@pytest.mark.parametrize("flag", ["-version", "--version", "--version=true"])
def test_the_version_is_flannelds_flag_too(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`vxlane agent -version` prints the version and ends well, as flanneld does."""
    with pytest.raises(click.exceptions.Exit) as raised:
        values(flag)
    assert raised.value.exit_code == 0
    assert capsys.readouterr().out == "vxlane 0.1.0\n"


def test_the_version_is_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLANNELD_VERSION, an image's tag in many a manifest, is no flag."""
    monkeypatch.setenv("FLANNELD_VERSION", "v0.28.9")
    assert values()["mode"] == "own"
