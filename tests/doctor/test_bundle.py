# SPDX-License-Identifier: Apache-2.0
"""The archive for a bug report: what is in it, and what never is."""

from __future__ import annotations

import json
import tarfile

import pytest

from vxlane.doctor import bundle
from vxlane.doctor.secrets import without_secrets

PLANTED = "Pl4nted-s3cret-value"
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIPl4nted\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        f"password={PLANTED}",
        f"ETCD_PASSWORD: '{PLANTED}'",
        f'{{"etcd-password": "{PLANTED}", "a": 1}}',
        f'{{"token": "{PLANTED} with spaces"}}',
        f"vxlane agent --etcd-password {PLANTED} --mode own",
        f"vxlane agent --etcd-password={PLANTED}",
        f"Authorization: Bearer {PLANTED}",
        f"https://root:{PLANTED}@10.0.0.1:2379/health",
        f"client-key-data: {PLANTED}",
        f"the answer was {JWT}",
        KEY,
        KEY[:50],
        "kubeadm join --token abcdef.0123456789abcdef",
        f"AWS_SECRET_ACCESS_KEY={PLANTED}",
    ],
)
def test_secrets_are_left_out(text):
    """Whatever a secret is written as, its value is gone and a note stands in its place."""
    kept = without_secrets(text)
    assert "(left out)" in kept
    for secret in (PLANTED, "Pl4nted", JWT, "0123456789abcdef", "with spaces"):
        assert secret not in kept


@pytest.mark.parametrize(
    "text",
    [
        "qdisc tbf 8001: root refcnt 2 rate 1Gbit burst 1Mb lat 50ms token bucket",
        "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink",
        "02:00:00:00:00:01 dev flannel.1 dst 192.168.77.12 self permanent",
        "cni0.100: mtu 1450; see https://github.com/flannel-io/flannel",
        "the token file can't be read",
        '{"cidr": "10.42.2.0/24", "tx_packets": 12}',
    ],
)
def test_what_a_report_is_for_stays(text):
    """Addresses, MACs, devices and sentences that name no secret stay as they are."""
    assert without_secrets(text) == text


def test_json_stays_json():
    """A document whose secret was left out can still be read."""
    kept = json.loads(without_secrets(json.dumps({"token": PLANTED, "rest": [1]})))
    assert kept == {"token": "(left out)", "rest": [1]}


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A state directory and an environment with secrets in many places."""
    (tmp_path / "agent.log").write_text(f"etcd: login with password={PLANTED} refused\n{KEY}\n")
    (tmp_path / "agent.json").write_text(json.dumps({"source_error": f"Bearer {PLANTED}"}))
    (tmp_path / "etcd.key").write_text(f"{KEY}{PLANTED}")
    (tmp_path / "token").write_text(PLANTED)
    monkeypatch.setenv("FLANNELD_ETCD_PASSWORD", PLANTED)
    return tmp_path


@pytest.mark.usefixtures("_machine")
def test_the_archive_holds_the_node_and_no_secret(planted, tmp_path_factory):
    """Documents, tools' words and logs are there; no planted secret is in any file of it."""
    path = tmp_path_factory.mktemp("report") / "report.tar.gz"
    bundle.write(path, planted, {"worst": "ok", "findings": []})
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        read = {each.name: archive.extractfile(each).read() for each in archive.getmembers()}
    names = {name.removeprefix("vxlane-doctor/") for name in read}
    assert {"doctor.json", "status.json", "versions.txt", "state/agent.log"} <= names
    assert {"links.txt", "routes.txt", "fdb.txt", "nft.txt", "qdiscs.txt", "programs.txt"} <= names
    assert not {"state/etcd.key", "state/token"} & names
    assert b"$ ip route show table all\n" in read["vxlane-doctor/routes.txt"]
    assert b"login with password=(left out) refused" in read["vxlane-doctor/state/agent.log"]
    for name, octets in read.items():
        assert PLANTED.encode() not in octets, name
        assert b"MHcCAQEEIPl4nted" not in octets, name


def test_a_tool_that_is_missing_is_told():
    """A command that is not installed leaves a word in its place."""
    assert bundle._output("no-such-tool --all") == "$ no-such-tool --all\nit is not installed\n"
