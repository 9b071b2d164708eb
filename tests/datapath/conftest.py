"""Every test of this folder runs inside a chamber that holds a whole node; see chamber.py."""

from __future__ import annotations

from collections.abc import Iterator

import node as nodes
import pytest
from bench import Bench

from vxlane.loader.datapath.programs import Constants, Strictness


@pytest.fixture(scope="session")
def node(_machine: None) -> Iterator[nodes.Node]:
    """The node, built once."""
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


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Call the test inside."""
    made: nodes.Node = pyfuncitem._request.getfixturevalue("node")
    wanted = pyfuncitem._fixtureinfo.argnames
    made.chamber.run(pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in wanted})
    return True
