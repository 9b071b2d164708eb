# SPDX-License-Identifier: Apache-2.0
"""Which devices a NIC stands for, from a sysfs that is written here."""

import socket

from vxlane.profile import nics

INDEXES = {"bond0.7": 9, "bond0": 8, "eth1": 2, "eth2": 3, "eth3": 4}


def test_devices_below(tmp_path, monkeypatch):
    """A VLAN on a bond stands for the bond and its ports, and for no other device."""
    for name, below in {
        "bond0.7": ["bond0"],
        "bond0": ["eth1", "eth2", "gone"],
        "eth1": [],
    }.items():
        (tmp_path / name).mkdir()
        for lower in below:
            (tmp_path / name / f"lower_{lower}").symlink_to(tmp_path)

    def index(name):
        if name not in INDEXES:
            raise OSError(name)
        return INDEXES[name]

    monkeypatch.setattr(nics, "SYSFS", tmp_path)
    monkeypatch.setattr(socket, "if_nametoindex", index)
    names = {number: name for name, number in INDEXES.items()}
    monkeypatch.setattr(nics, "device_name", names.get)
    assert nics.with_lower([9]) == {9, 8, 2, 3}
    assert nics.with_lower([4]) == {4}
