# SPDX-License-Identifier: Apache-2.0
"""A test here that uses the node runs inside the chamber that holds it; see chamber.py."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import device as devices
import node as nodes
import pytest
from bench import Bench
from chamber import Port

from vxlane.datapath.attach import Hooks, Method
from vxlane.datapath.programs import Constants, Strictness
from vxlane.netlink.socket import NetlinkSocket


@pytest.fixture(scope="session")
def node(_machine: None) -> Iterator[nodes.Node]:
    """The node, built once; it has no name outside."""
    made = nodes.build()
    yield made
    made.close()


@pytest.fixture(scope="session")
def bench(node: nodes.Node, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The programs as an agent loads them."""
    return node.chamber.run(Bench, tmp_path_factory.mktemp("bench"), Constants())


@pytest.fixture(scope="session")
def strict_bench(node: nodes.Node, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The programs as an agent with --strict loads them."""
    constants = Constants(strict=Strictness.DROP)
    return node.chamber.run(Bench, tmp_path_factory.mktemp("strict"), constants)


@pytest.fixture
def device(node: nodes.Node) -> Iterator[devices.Device]:
    """A veth of one test's own."""
    node.chamber.run(devices.add_device, node.outside.tid)
    made = devices.Device(
        near=node.chamber.run(Port, "hook"), far=node.outside.run(devices.open_far)
    )
    yield made
    made.near.close()
    made.far.close()
    node.chamber.run(subprocess.run, ["ip", "link", "delete", "hook"], check=False)


@pytest.fixture
def netlink(node: nodes.Node) -> Iterator[NetlinkSocket]:
    """Netlink inside the chamber."""
    made = node.chamber.run(NetlinkSocket)
    yield made
    node.chamber.run(made.close)


@pytest.fixture
def auto(node: nodes.Node, bench: Bench, netlink: NetlinkSocket) -> Iterator[Hooks]:
    """Hooks that decide for themselves."""
    made = Hooks(bench.pins, Method.AUTO, netlink)
    yield made
    node.chamber.run(made.detach_all)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call the test inside if it uses the node; pytest calls the others."""
    if "node" not in pyfuncitem.fixturenames:
        return None
    made: nodes.Node = pyfuncitem._request.getfixturevalue("node")
    wanted = pyfuncitem._fixtureinfo.argnames
    made.chamber.run(pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in wanted})
    return True
