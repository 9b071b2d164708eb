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
