# SPDX-License-Identifier: Apache-2.0
"""Where the API server is, and our identity there: from a kubeconfig, or from inside a pod.

Owns the reading of kubeconfig and service account files. Files that rotate (tokens, certificates)
are read for each connection. The kubeconfig itself is read once.
"""

from __future__ import annotations

import base64
import io
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vxlane.errors import ConfigError, SourceError, one_line
from vxlane.sources.http import checked_url
from vxlane.sources.tls import Material, client_context, read

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_UNSUPPORTED_USER = {
    "exec": "programs that print credentials (exec) are not run by a node's agent",
    "auth-provider": "auth-provider was removed from Kubernetes",
    "username": "basic authentication was removed from Kubernetes",
    "as": "impersonation (as) is not supported",
}
_UNSUPPORTED_CLUSTER = {
    "insecure-skip-tls-verify": "a server that is not verified is not talked to",
    "proxy-url": "proxies are not supported",
    "tls-server-name": "tls-server-name is not supported; use a name that the certificate holds",
}
_FILES = {"certificate-authority", "client-certificate", "client-key", "tokenFile"}
"""Keys whose values are names of files, as seen from the kubeconfig."""
_ADVICE = "give a certificate, a token or a tokenFile"


@dataclass(frozen=True, slots=True)
class Access:
    """One server and one identity. A secret is a file, which is read when it is needed, or PEM or
    token text from a kubeconfig.
    """

    server: str
    authority: Material | None = None
    """The CA; None: the system's."""
    certificate: Material | None = None
    key: Material | None = None
    token: Material | None = None

    def headers(self) -> Mapping[str, str]:
        """The header with our token. A token file is read each time, since bound tokens rotate."""
        if self.token is None:
            return {}
        token = read(self.token).strip()
        # http.client would quote one that fits no header.
        if not token.isascii() or len(token.splitlines()) != 1:
            where = self.token if isinstance(self.token, Path) else "the kubeconfig"
            raise SourceError(f"{where} holds no token; is it being written?")
        return {"Authorization": f"Bearer {token.decode()}"}

    def tls(self) -> ssl.SSLContext:
        """A context of the certificates as they are now; SourceError if they can't be used."""
        return client_context(self.authority, self.certificate, self.key)


def find_access(kubeconfig: Path | None, environ: Mapping[str, str], *, server: str = "") -> Access:
    """The access that flanneld's options describe. With `kubeconfig` it is that file's, with
    `server` in place of the file's server if given. With `server` alone there are no credentials.
    With neither it is the pod's service account.
    """
    if kubeconfig is not None:
        return read_kubeconfig(kubeconfig, server=server)
    if server:
        return Access(checked_url(server))
    return in_cluster(environ)


def in_cluster(environ: Mapping[str, str], *, account: Path = SERVICE_ACCOUNT) -> Access:
    """The access of the pod that this process runs in."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (account / "token").exists():
        raise ConfigError("this is no pod with a service account; give --kubeconfig-file")
    if ":" in host:
        host = f"[{host}]"
    return Access(f"https://{host}:{port}", account / "ca.crt", token=account / "token")


def read_kubeconfig(*paths: Path, server: str = "") -> Access:
    """The access of the current context of a kubeconfig, or of several, merged as kubectl does it:
    the first one that names a current context, a context, a cluster or a user counts for it.
    """
    merged: dict[str, Any] = {"current-context": ""}
    for path in paths:
        document = _document(path)
        merged["current-context"] = merged["current-context"] or document.get("current-context")
        for kind in ("context", "cluster", "user"):
            merged.setdefault(f"{kind}s", []).extend(_entries(document, kind))
    try:
        return _access(merged, server=server)
    except ConfigError as error:
        raise ConfigError(f"{os.pathsep.join(map(str, paths))}: {error}") from None


def _document(path: Path) -> Mapping[str, Any]:
    """What is in one file, its names of files seen from here. ConfigError: it is no kubeconfig."""
    try:
        # Of bytes PyYAML's error quotes the wrong line, which may hold a token; of a stream not.
        document = yaml.safe_load(io.BytesIO(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a kubeconfig that exists") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from None
    if document is None:  # To kubectl an empty file is one that says nothing.
        return {}
    if not isinstance(document, Mapping):
        needed = "it must be a mapping with clusters, users, contexts"
        raise ConfigError(f"{path}: is no kubeconfig; {needed}")
    for kind in ("cluster", "user"):
        for entry in _entries(document, kind):
            section, place = entry.get(kind), path.parent.absolute()
            if isinstance(section, dict):
                named = (key for key in _FILES if section.get(key))
                section.update({key: place / str(section[key]) for key in named})
    return document


def _entries(document: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """The list `kind`s."""
    entries = document.get(f"{kind}s")
    listed = entries if isinstance(entries, list) else []
    return [entry for entry in listed if isinstance(entry, Mapping)]


def _access(document: Mapping[str, Any], *, server: str) -> Access:
    context = _named(document, "context", str(document.get("current-context") or ""))
    cluster = _named(document, "cluster", str(context.get("cluster") or ""))
    user = _named(document, "user", str(context["user"])) if context.get("user") else {}
    _refuse(cluster, _UNSUPPORTED_CLUSTER)
    _refuse(user, _UNSUPPORTED_USER)
    access = Access(
        server=checked_url(server or str(cluster.get("server") or "")),
        authority=_material(cluster, "certificate-authority"),
        certificate=_material(user, "client-certificate"),
        key=_material(user, "client-key"),
        token=_token(user),
    )
    if (access.certificate is None) != (access.key is None):
        raise ConfigError("client-certificate and client-key belong together; give both")
    return access


def _named(document: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    """The entry `name` of the list `kind`s."""
    for entry in _entries(document, kind):
        if entry.get("name") == name:
            value = entry.get(kind)
            return value if isinstance(value, Mapping) else {}
    raise ConfigError(f"has no {kind} named {name!r}; set current-context to one that is complete")


def _refuse(section: Mapping[str, Any], unsupported: Mapping[str, str]) -> None:
    for key, reason in unsupported.items():
        if section.get(key):
            raise ConfigError(
                f"{reason}; {_ADVICE}" if unsupported is _UNSUPPORTED_USER else reason
            )


def _material(section: Mapping[str, Any], key: str) -> Material | None:
    """The PEM that `key` (a path) or `key`-data (base64) means; the text wins, as in client-go."""
    if data := section.get(f"{key}-data"):
        try:
            return base64.b64decode(str(data), validate=True)
        except ValueError:
            raise ConfigError(f"{key}-data is not base64") from None
    return _file(section, key)


def _token(user: Mapping[str, Any]) -> Material | None:
    # client-go prefers the file: the text beside it is the file's value at some time.
    if file := _file(user, "tokenFile"):
        return file
    return str(user["token"]).encode() if user.get("token") else None


def _file(section: Mapping[str, Any], key: str) -> Path | None:
    return Path(section[key]) if section.get(key) else None
