# SPDX-License-Identifier: Apache-2.0
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apiserver import ApiServer
from etcdnetwork import Network
from etcdserver import EtcdServer
from following import QUICK
from relay import Relay

from vxlane.sources.kubernetes.access import Access
from vxlane.sources.kubernetes.source import KubernetesSource


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """An API server that is up, with no nodes yet."""
    server = ApiServer().up()
    yield server
    server.down()


@pytest.fixture
def follow() -> Iterator[Callable[..., KubernetesSource]]:
    """Makes started sources that are closed after the test."""
    sources = []

    def make(api: ApiServer, own: str = "node-00000", **options: Any) -> KubernetesSource:
        options = {"timing": QUICK, **options}
        access = options.pop("access", Access(api.url))
        source = KubernetesSource(access, own, **options)
        sources.append(source)
        source.start()
        return source

    yield make
    for source in sources:
        source.close()


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A CA and certificates of 127.0.0.1, of a client, and of one without a common name: PEM."""
    where = tmp_path_factory.mktemp("pki")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    _openssl(where, *key, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    for name, subject in ("server", "CN"), ("client", "CN"), ("nameless", "O"):
        signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-x509", "-subj", f"/{subject}={name}"]
        alternative = ["-addext", "subjectAltName=IP:127.0.0.1"]
        constraint = ["-addext", "basicConstraints=CA:FALSE"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
        _openssl(where, *key, *signed, *alternative, *constraint, *files)
    return SimpleNamespace(**{path.name.replace(".", "_"): path for path in where.iterdir()})


def _openssl(where: Path, *arguments: str) -> None:
    subprocess.run(["openssl", "req", *arguments], cwd=where, check=True, capture_output=True)


@pytest.fixture(scope="session")
def etcd(_machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """One etcd for all tests."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd")).up()
    yield server
    server.close()


@pytest.fixture
def network(etcd: EtcdServer, request: pytest.FixtureRequest) -> Iterator[Network]:
    """A network of this test's own, on an etcd that is up."""
    made = Network(etcd, f"/test/{request.node.name}")
    yield made
    for source in made.sources:
        source.close()
    etcd.up()


@pytest.fixture
def relay(etcd: EtcdServer) -> Iterator[Relay]:
    """A way to etcd that can be shut."""
    made = Relay(etcd.url)
    yield made
    made.close()
