# SPDX-License-Identifier: Apache-2.0
"""What pods are called, and whom a word means."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from vxlane.datapath.abi import Guard
from vxlane.datapath.records import IPAddress, Pod
from vxlane.errors import OptionError
from vxlane.pods import names
from vxlane.pods.interfaces import PodStore, parse_interface
from vxlane.pods.names import PodNames, read_pod_names

WEB, OTHER, LONELY = (IPv4Address(f"10.42.1.{number}") for number in (5, 6, 7))
NAMES = PodNames({"default/web": [WEB], "test/web": [OTHER], "test/two": [OTHER, WEB]})


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch) -> dict[IPAddress, Pod]:
    """A pod without a name, behind the veth veth9."""
    monkeypatch.setattr(names, "device_name", lambda ifindex: f"veth{ifindex}")
    mac = "02:00:00:00:00:01"
    return {LONELY: Pod(LONELY, 9, 0, 1450, mac, mac, Guard(0), owner=1)}


@pytest.mark.parametrize(
    ("word", "address"),
    [("10.42.1.9", "10.42.1.9"), ("default/web", WEB), ("veth9", LONELY)],
)
def test_found(pods: dict[IPAddress, Pod], word: str, address: object) -> None:
    """A pod goes by an address, by its name, and by its veth."""
    assert str(NAMES.find(word, pods)) == str(address)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nobody", "no pod of this node is known by that name; give its address, which 'vxlane"),
        ("web", "'web' may be default/web 10.42.1.5, test/web 10.42.1.6; give the address"),
        ("two", "may be test/two 10.42.1.6, test/two 10.42.1.5; give the address"),
    ],
)
def test_refused(pods: dict[IPAddress, Pod], word: str, message: str) -> None:
    """A word that means nobody, or several, is refused with what to give instead."""
    with pytest.raises(OptionError, match=message):
        NAMES.find(word, pods)


def test_words(pods: dict[IPAddress, Pod]) -> None:
    """The shell is offered names with their namespace and without, and veths."""
    assert NAMES.words(pods) == ["default/web", "test/two", "test/web", "two", "veth9", "web"]


def test_files(tmp_path: Path) -> None:
    """Names are those that the agent's files hold; a file that can't be read is left alone."""
    store = PodStore(tmp_path / "pods")
    request = {"ifname": "eth0", "host_ifname": "veth7", "mac": "02:00:00:00:01:02"}
    for number, name in enumerate(["shop/web-0", ""]):
        told = {"container_id": f"c{number}", "addresses": [f"10.42.1.{number}"], "name": name}
        store.save(parse_interface(request | told))
    bad = tmp_path / "pods" / "bad,eth0.json"
    bad.write_text("{")
    assert read_pod_names(tmp_path).by_address() == {IPv4Address("10.42.1.0"): "shop/web-0"}
    assert bad.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"container_id": []},
        {"host_ifname": 3},
        {"mac": None},
        {"addresses": ["10.42.1"]},
        {"addresses": [5]},
        {"addresses": None},
    ],
)
def test_a_file_of_another_shape(tmp_path: Path, change: dict[str, object]) -> None:
    """A file in which a value is damaged is removed, and the agent begins without that pod."""
    store = PodStore(tmp_path / "pods")
    request = {"ifname": "eth0", "host_ifname": "veth7", "mac": "02:00:00:00:01:02"}
    store.save(parse_interface(request | {"container_id": "c", "addresses": [], "name": ""}))
    (file,) = (tmp_path / "pods").iterdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert store.load() == {}
    assert not file.exists()
