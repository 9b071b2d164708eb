# SPDX-License-Identifier: Apache-2.0
"""Finding the API server and proving who we are, over real TLS where it is about TLS."""

import base64
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from apiserver import ApiServer, make_node
from following import QUICK, wait_for

from vxlane.errors import ConfigError, SourceError
from vxlane.sources.kubernetes.access import Access, find_access, in_cluster
from vxlane.sources.kubernetes.source import KubernetesSource, own_node_name

Follow = Callable[..., KubernetesSource]


@pytest.fixture
def secure(pki: SimpleNamespace) -> Iterator[ApiServer]:
    """An API server with one node that speaks TLS and asks for a client certificate of our CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_crt, pki.server_key)
    context.load_verify_locations(pki.ca_crt)
    context.verify_mode = ssl.CERT_REQUIRED
    server = ApiServer(tls=context).up()
    server.put(make_node(0))
    yield server
    server.down()


def kubeconfig(directory: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    """A kubeconfig of these parts."""
    path = directory / "config"
    document = {
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "none", "user": "none"}},
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def encoded(path: Path) -> str:
    """The file as base64."""
    return base64.b64encode(path.read_bytes()).decode()


def test_a_kubeconfig_with_data_opens_a_tls_server(
    secure: ApiServer, follow: Follow, pki: SimpleNamespace, tmp_path: Path
) -> None:
    """CA, client certificate and key that a kubeconfig holds as base64 are enough to be let in."""
    cluster = {"server": secure.url, "certificate-authority-data": encoded(pki.ca_crt)}
    user = {
        "client-certificate-data": encoded(pki.client_crt),
        "client-key-data": encoded(pki.client_key),
    }
    access = find_access(kubeconfig(tmp_path, cluster, user), {})
    assert wait_for(follow(secure, access=access), lambda s: s.own)


def test_a_kubeconfig_with_files_takes_them_from_its_own_directory(
    secure: ApiServer, follow: Follow, pki: SimpleNamespace, tmp_path: Path
) -> None:
    """Relative file names in a kubeconfig are relative to it; --kube-api-url wins."""
    for path in pki.ca_crt, pki.client_crt, pki.client_key:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    cluster = {"certificate-authority": "ca.crt"}
    user = {"client-certificate": "client.crt", "client-key": "client.key"}
    access = find_access(kubeconfig(tmp_path, cluster, user), {}, server=secure.url)
    assert wait_for(follow(secure, access=access), lambda s: s.own)


def test_an_unknown_authority_is_named(secure: ApiServer, follow: Follow) -> None:
    """A server certificate that no known CA signed is refused with the advice to check the CA."""
    source = follow(secure, access=Access(secure.url))
    assert "check the CA file" in wait_for(source, lambda s: s.error).error


def test_a_refused_client_is_told(secure: ApiServer, follow: Follow, pki: SimpleNamespace) -> None:
    """Without the certificate that the server asks for there is an error, and nothing is read."""
    source = follow(secure, access=Access(secure.url, pki.ca_crt))
    # The server's alert and its reset of the connection race: only one of them has a reason.
    assert re.search("TLS failed|cut|reset", wait_for(source, lambda s: s.error).error)
    assert source.nodes().read_at is None


def test_certificates_may_come_later_and_rotate(
    secure: ApiServer, follow: Follow, pki: SimpleNamespace, tmp_path: Path
) -> None:
    """Files that are not there yet are an error that goes away when they appear."""
    key = tmp_path / "client.key"
    access = Access(secure.url, pki.ca_crt, pki.client_crt, key)
    source = follow(secure, access=access)
    assert wait_for(source, lambda s: s.error)
    key.write_bytes(pki.client_key.read_bytes())
    assert wait_for(source, lambda s: s.own and not s.error)


def test_a_token_file_is_preferred_to_the_text_beside_it(tmp_path: Path) -> None:
    """A tokenFile wins over a token; both become a bearer header, without the final newline."""
    (tmp_path / "token").write_text("of the file\n")
    text = find_access(kubeconfig(tmp_path, {}, {"token": "of the text"}), {})
    assert text.headers() == {"Authorization": "Bearer of the text"}
    user = {"token": "of the text", "tokenFile": "token"}
    file = find_access(kubeconfig(tmp_path, {}, user), {})
    assert file.headers() == {"Authorization": "Bearer of the file"}


@pytest.mark.parametrize("content", [b"", b"secret\nsecret", b"secret\xff"])
def test_what_fits_no_header_is_named_by_its_file(tmp_path: Path, content: bytes) -> None:
    """http.client would quote it, and so it would be in the log."""
    token = tmp_path / "token"
    token.write_bytes(content)
    with pytest.raises(SourceError, match=str(token)) as raised:
        Access("http://127.0.0.1:1", token=token).headers()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({}, {"exec": {"command": "aws"}}, "exec"),
        ({}, {"auth-provider": {"name": "gcp"}}, "auth-provider"),
        ({}, {"username": "admin", "password": "x"}, "basic authentication"),
        ({"insecure-skip-tls-verify": True}, {}, "not verified"),
        ({"proxy-url": "http://proxy"}, {}, "proxies"),
        ({"server": "ftp://x"}, {}, "https://host:port"),
        ({"server": "https://x:port"}, {}, "https://host:port"),
        ({"certificate-authority-data": "%%"}, {}, "base64"),
        ({}, {"client-key": "k"}, "belong together"),
    ],
)
def test_what_can_not_work_is_refused_in_words(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], words: str
) -> None:
    """A kubeconfig that asks for something unsupported is an error that names file and reason."""
    path = kubeconfig(tmp_path, cluster, user)
    with pytest.raises(ConfigError, match=words) as raised:
        find_access(path, {})
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("text", ["", "- 1", "{", "current-context: x", "contexts: 7", "[" * 5000])
def test_a_broken_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    """What is no kubeconfig is a ConfigError, never a traceback."""
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        find_access(path, {})
    assert "\n" not in str(raised.value)


def test_where_a_kubeconfig_is_wrong_is_told(tmp_path: Path) -> None:
    """By line and column, and without the line's words: it may hold a token."""
    path = tmp_path / "config"
    path.write_text("users: [{user: {token: secret}\n")
    with pytest.raises(ConfigError) as raised:
        find_access(path, {})
    said = str(raised.value)
    assert said.startswith(f"{path} is not YAML: while parsing a flow mapping at line 1, column 9 ")
    assert "secret" not in said


def test_no_kubeconfig_is_refused(tmp_path: Path) -> None:
    """A missing file, and no file outside of a pod, are errors with the next step."""
    with pytest.raises(ConfigError, match="give a kubeconfig that exists"):
        find_access(tmp_path / "none", {})
    with pytest.raises(ConfigError, match="--kubeconfig-file"):
        find_access(None, {})


def test_a_pod_uses_its_service_account(tmp_path: Path) -> None:
    """In a pod the address comes from the environment, CA and token from the mounted account."""
    (tmp_path / "token").write_text("t")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = in_cluster(environ, account=tmp_path)
    assert access.server == "https://[fd00::1]:443"
    assert access.authority == tmp_path / "ca.crt"
    assert access.headers() == {"Authorization": "Bearer t"}


def test_a_server_alone_is_used_without_identity() -> None:
    """--kube-api-url without a kubeconfig gives that server and nothing else."""
    assert find_access(None, {}, server="http://127.0.0.1:8080/") == Access("http://127.0.0.1:8080")


def test_the_nodes_name_comes_from_the_environment_or_the_pod(api: ApiServer) -> None:
    """NODE_NAME wins; else the pod's spec is asked; with neither, or an unknown pod, an error."""
    api.pods["/api/v1/namespaces/kube-flannel/pods/vxlane-x"] = "node-7"
    access, pod = Access(api.url), {"POD_NAME": "vxlane-x", "POD_NAMESPACE": "kube-flannel"}
    assert own_node_name(access, {"NODE_NAME": "n", **pod}, timing=QUICK) == "n"
    assert own_node_name(access, pod, timing=QUICK) == "node-7"
    with pytest.raises(ConfigError, match="set NODE_NAME"):
        own_node_name(access, {}, timing=QUICK)
    with pytest.raises(SourceError, match="404"):
        own_node_name(access, {**pod, "POD_NAME": "gone"}, timing=QUICK)
