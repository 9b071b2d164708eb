# SPDX-License-Identifier: Apache-2.0
"""`vxlane test` and its completion, where there is no node to test."""

from ipaddress import IPv4Address

import pytest
from click.testing import CliRunner

from vxlane.cli import complete
from vxlane.cli.test import _findings, _text
from vxlane.cli.test import test as command
from vxlane.connectivity.result import Finding, Result, document
from vxlane.util.places import STATE_VARIABLE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--serve", "--target", "10.42.2.9"], "run it alone"),
        (["--serve", "node2"], "run it alone"),
        (["node2", "--target", "10.42.2.9"], "give NODE or --target"),
        (["--target", "node2"], "'node2' is not an IPv4 address"),
        (["--target", "10.42.2.9:"], "is not an IPv4 address, or one with :PORT"),
        (["--target", "10.42.2.9:65536"], "is not an IPv4 address, or one with :PORT"),
        (["--service", "10.96.0.10"], "has no port; write ADDRESS:PORT"),
    ],
)
def test_wrong_use_is_status_2(arguments, said):
    """Arguments that contradict each other, or can't be read, are refused before anything else."""
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert said in done.output


def test_nothing_is_offered_without_maps(tmp_path, monkeypatch):
    """Completion is silent where no programs are pinned."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    offers = (complete.peers, complete.pods, complete.pod_addresses)
    assert [offered(None, None, "") for offered in offers] == [[], [], []]


def test_the_document_counts():
    """Each result is counted by its word."""
    passed = Finding("10.42.2.9", "ping", Result.PASSED, "30 of 30", 20.5)
    failed = Finding("10.42.2.9", "tcp", Result.FAILED, "Connection refused")
    made = document("10.42.1.9", [passed, failed, failed])
    assert (made["passed"], made["failed"], made["skipped"]) == (1, 2, 0)
    assert made["tests"][0] == {
        "to": "10.42.2.9",
        "test": "ping",
        "result": "passed",
        "detail": "30 of 30",
        "figure": 20.5,
    }


class Unused:
    """A prober of which no test of a peer is asked."""

    def to_service(self, address, port):
        """The Service answers."""
        return Finding(f"{address}:{port}", "service", Result.PASSED, "connected")


def test_what_was_not_tried_has_its_rows(monkeypatch):
    """With a Service alone the tests to peers and to a target are there, as not tried."""
    service = IPv4Address("10.96.0.10"), 53
    made = document("10.42.1.9", list(_findings(Unused(), [], [], None, service)))
    left_out = [row["test"] for row in made["tests"] if row["result"] == "skipped"]
    assert left_out == ["entries", "ping", "mtu", "bypass", "tcp", "udp"]
    monkeypatch.setenv("COLUMNS", "80")
    shown = _text(made)
    assert shown.count("not tried") == 6 + 1
    assert "'vxlane test' alone" in shown  # NODE beside --target is refused
    assert max(map(len, shown.splitlines())) <= 80
