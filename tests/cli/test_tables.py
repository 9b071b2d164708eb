# SPDX-License-Identifier: Apache-2.0
"""`vxlane flows` and `vxlane stats` in 80 columns, with a cluster's usual addresses and figures."""

import pytest

from vxlane.cli import flows, stats, status
from vxlane.datapath.abi import Program, Verdict

POD = "production/checkout-payments-worker-7f9c6d5b44-x2x7q"
SERVICE = {
    "local": "10.42.1.3",
    "local_port": 40001,
    "remote": "10.42.2.7",
    "remote_port": 8443,
}
FLOW = SERVICE | {
    "protocol": "tcp",
    "out_age_seconds": 12.345,
    "in_age_seconds": 0.123,
    "translated": None,
    "state": "approved",
    "withdrawn": False,
    "pod": POD,
}
TRANSLATED = FLOW | {"remote": "10.43.0.1", "remote_port": 443, "translated": SERVICE}


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    """It has 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize(
    ("flow", "width"), [(FLOW, 80), (TRANSLATED, 90)], ids=["to a pod", "to a Service"]
)
def test_flows(flow, width):
    """A line has both ends, what a Service is translated to, the state, both ages, and room for a
    name, which takes more than 80 columns where a Service is.
    """
    shown = flows._text([flow])
    assert max(map(len, shown.splitlines())) <= width, shown
    words = shown.splitlines()[1].split()
    ends = ["tcp", "10.42.1.3:40001", f"{flow['remote']}:{flow['remote_port']}"]
    ends += ["10.42.2.7:8443"] if flow["translated"] else []
    assert words[:-1] == [*ends, "approved", "12.3", "0.1"]
    assert len(words[-1]) >= 12
    assert words[-1].endswith("-x2x7q")


@pytest.mark.parametrize("state", ["learning", "aged", "withdrawn"])
def test_a_flow_keeps_its_pod(state):
    """What is not approved says so in a column of its own, beside the pod."""
    other = FLOW | {"state": state, "withdrawn": state == "withdrawn", "pod": "shop/web"}
    head, *rows = (line.split() for line in flows._text([FLOW, other]).splitlines())
    assert "TRANSLATED" not in head
    assert head[3:4] + head[-1:] == ["STATE", "POD"]
    assert [row[3] for row in rows] == ["approved", state]
    assert rows[1][-1] == "shop/web"


def test_stats():
    """Whatever the program and the verdict, and with a peer that has some millions of packets."""
    count = {"packets": 1_234_567_890, "bytes": 1_234_567_890_123}
    verdicts = {verdict.label: count for verdict in Verdict}
    peer = {"tx_packets": 1_234_567, "tx_bytes": 987_654_321}
    peer |= {"rx_packets": 7_654_321, "rx_bytes": 123_456_789}
    document = {
        "programs": {program.label: verdicts for program in Program},
        "peers": [{"cidr": "10.42.255.0/24", "address": "192.168.77.12", **peer}],
        "bypassed": {"total": {"share": 0.999, **dict.fromkeys(("bypassed", "packets"), 10**12)}},
    }
    shown = stats._text(document)
    assert max(map(len, shown.splitlines())) <= 80, shown
    assert "987,654,321" in shown


def test_a_process_is_named_as_kill_takes_it():
    """Its number has no commas, other than one that counts."""
    shown = status._text({"agent": {"pid": 12345, "reconciles": 12345}, "programs": {}})
    assert [line.split()[-1] for line in shown.splitlines()[1:3]] == ["12345", "12,345"]
