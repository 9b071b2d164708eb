# SPDX-License-Identifier: Apache-2.0
"""Values that a command can't work with are refused before it begins."""

import os
from pathlib import Path

import click
import pytest

from vxlane.agent.prepare import prepare
from vxlane.cli.agent import agent
from vxlane.cli.capture import capture
from vxlane.cli.capture_merge import merge
from vxlane.cli.compile import compile as compile_command
from vxlane.cli.detach import detach
from vxlane.cli.doctor import doctor
from vxlane.cli.install import install
from vxlane.cli.lab import lab
from vxlane.cli.profile import profile
from vxlane.errors import OptionError
from vxlane.host.underlay import Choice


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


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (agent, ("--state-dir", "")),
        (agent, ("--subnet-file", "")),
        (agent, ("--host-root", "")),
        (agent, ("--nodes-file", "")),
        (agent, ("--ready-file", "")),
        (agent, ("--cni-cache-dir", "")),
        (agent, ("--cni-conf-dir", "")),
        (detach, ("--state-dir", "")),
        (doctor, ("--bundle", "")),
        (install, ("--cni-bin-dir", "")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value.name,
)
def test_an_empty_path_is_refused(command, words):
    """It would be the current directory: `--state-dir "$DIR"` of a script that set none."""
    with pytest.raises(click.BadParameter, match="the name is empty"):
        command.make_context(command.name, list(words))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (profile, ("--json", "")),
        (profile, ("--html", "")),
        (capture, ("-w", "")),
        (merge, ("a", "b", "-w", "")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value.name,
)
def test_an_empty_name_of_an_output_is_refused(command, words):
    """The directory that it would be is not what anybody meant."""
    with pytest.raises(click.BadParameter, match="it is empty; give a value"):
        command.make_context(command.name, list(words))


def test_an_empty_interface_is_none():
    """To flanneld it is the default route's. As a pattern it would fit the first of all."""
    words = ["--mode", "adopt", "--iface", "", "--iface-regex", ""]
    config, _ = prepare(agent.make_context("agent", words).params)
    assert config.choice == Choice()


def test_a_pattern_that_is_none_is_refused():
    """Also beside an --iface that is found, so that it does not wait for the day it is not."""
    with pytest.raises(click.BadParameter, match="'\\[' is no regular expression: unterminated"):
        agent.make_context("agent", ["--iface", "lo", "--iface-regex", "["])
    known = agent.make_context("agent", ["--iface-regex", "eth.", "--iface-regex", "10[.]"])
    assert [pattern.pattern for pattern in known.params["iface_regex"]] == ["eth.", "10[.]"]


@pytest.mark.parametrize(
    ("option", "word", "reason"),
    [
        ("--etcd-endpoints", "localhost:2379", "'localhost:2379' is not the address of a server"),
        ("--etcd-endpoints", "http://127.0.0.1:2379,", "'' is not the address of a server"),
        ("--etcd-endpoints", "http://[::1", r"'http://\[::1' is not the address of a server"),
        ("--etcd-endpoints", "ftp://x", "'ftp://x' is not the address of a server"),
        ("--kube-api-url", "https://x:y", "'https://x:y' is not the address of a server"),
        ("--public-ip", "::1", "address '::1' is not an IPv4 address"),
        ("--public-ip", "0.0.0.0", "address '0.0.0.0' can't be a node's underlay address"),
        ("--iface-can-reach", "x", "address 'x' is not an IPv4 address"),
    ],
)
def test_what_is_no_address_is_refused(option, word, reason):
    """It is the command line's fault, and not one that a server may mend while the agent waits."""
    with pytest.raises(click.BadParameter, match=reason) as raised:
        agent.make_context("agent", [option, word])
    assert f"'{option}'" in raised.value.format_message()


@pytest.mark.parametrize(
    "option", ["--etcd-username", "--etcd-password", "--etcd-certfile", "--etcd-keyfile"]
)
def test_half_of_a_pair_is_refused(option):
    """A user without a password, or a key without its certificate, would be left out in silence."""
    context = agent.make_context("agent", ["--etcd-endpoints", "http://192.0.2.1", option, "x"])
    with pytest.raises(OptionError, match=f"{option}.* go together|and {option} go together"):
        prepare(context.params)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nodes-file", "x", "--kube-subnet-mgr"], "nodes come from one place"),
        (["--public-ipv6", "2001:db8::1"], "--public-ipv6 is not supported"),
    ],
)
def test_options_that_no_agent_can_have_are_a_wrong_command_line(words, said):
    """Status 2, as of a word that means nothing."""
    with pytest.raises(OptionError, match=said):
        prepare(agent.make_context("agent", words).params)


@pytest.mark.parametrize(
    ("command", "words"), [(compile_command, ()), (doctor, ("--bundle",))], ids=str
)
def test_what_is_no_file_is_not_replaced(tmp_path, command, words):
    """Root could replace /dev/null by a file; here it is a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OptionError, match=r"is not a plain file; name another$"):
        command.main([*words, str(pipe)], standalone_mode=False)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("word", "directories"), [("", ()), ("/a b", ("/a b",)), ("/a:/b", ("/a", "/b"))]
)
def test_directories_of_the_environment(monkeypatch, word, directories):
    """They are as in PATH: one may have a space in its name."""
    monkeypatch.setenv("VXLANE_CNI_CACHE_DIR", word)
    context = agent.make_context("agent", [])
    assert context.params["cni_cache_dir"] == tuple(map(Path, directories))
