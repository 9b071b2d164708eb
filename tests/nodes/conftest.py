import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apiserver import ApiServer
from following import QUICK

from vxlane.loader.nodes.kubernetes.access import Access
from vxlane.loader.nodes.kubernetes.source import KubernetesSource


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
    """A CA, a certificate of 127.0.0.1, and one of a client, as PEM files."""
    where = tmp_path_factory.mktemp("pki")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    _openssl(where, *key, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    for name in "server", "client":
        signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-x509", "-subj", f"/CN={name}"]
        alternative = ["-addext", "subjectAltName=IP:127.0.0.1"]
        constraint = ["-addext", "basicConstraints=CA:FALSE"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
        _openssl(where, *key, *signed, *alternative, *constraint, *files)
    names = ["ca.crt", "server.crt", "server.key", "client.crt", "client.key"]
    return SimpleNamespace(**{name.replace(".", "_"): where / name for name in names})


def _openssl(where: Path, *arguments: str) -> None:
    subprocess.run(["openssl", "req", *arguments], cwd=where, check=True, capture_output=True)
