# SPDX-License-Identifier: Apache-2.0
"""subnet.env, byte for byte, and when it is written."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from vxlane.errors import KernelError
from vxlane.host import subnet_env
from vxlane.host.subnet_env import SubnetEnv

CONTENT = SubnetEnv(IPv4Network("10.42.0.0/16"), IPv4Network("10.42.1.0/24"), 1450, True)  # noqa: FBT003


def test_the_bytes_are_flannels(tmp_path: Path) -> None:
    """Its four keys in its order; the subnet is the gateway's address."""
    path = tmp_path / "run" / "subnet.env"
    assert subnet_env.write(path, CONTENT)
    assert path.read_bytes() == (
        b"FLANNEL_NETWORK=10.42.0.0/16\n"
        b"FLANNEL_SUBNET=10.42.1.1/24\n"
        b"FLANNEL_MTU=1450\n"
        b"FLANNEL_IPMASQ=true\n"
    )
    assert path.parent.stat().st_mode & 0o777 == 0o755


def test_it_is_written_when_it_says_something_else(tmp_path: Path) -> None:
    """The very file stays while nothing changed; runtimes watch it."""
    path = tmp_path / "subnet.env"
    subnet_env.write(path, CONTENT)
    before = path.stat().st_ino
    assert not subnet_env.write(path, CONTENT)
    assert path.stat().st_ino == before
    assert subnet_env.write(path, dataclasses.replace(CONTENT, is_masqueraded=False))
    assert path.read_text().endswith("FLANNEL_IPMASQ=false\n")


def test_it_reads_back(tmp_path: Path) -> None:
    """Keys and values; what is no assignment does not count; without a file there is nothing."""
    path = tmp_path / "subnet.env"
    assert subnet_env.read(path) == {}
    path.write_text("FLANNEL_MTU=1450\n\n# a=comment\nnonsense\nX=a=b\n")
    assert subnet_env.read(path)["FLANNEL_MTU"] == "1450"
    assert subnet_env.read(path)["X"] == "a=b"
    assert "nonsense" not in subnet_env.read(path)


def test_a_place_that_cant_be_written_is_named(tmp_path: Path) -> None:
    """The file and the option that gives another place."""
    (tmp_path / "file").touch()
    with pytest.raises(KernelError, match=r"file/subnet.env.*--subnet-file"):
        subnet_env.write(tmp_path / "file" / "subnet.env", CONTENT)
