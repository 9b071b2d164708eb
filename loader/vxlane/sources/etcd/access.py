# SPDX-License-Identifier: Apache-2.0
"""Where etcd is, and our identity there, in the terms of flanneld's --etcd-* options."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from vxlane.sources.tls import client_context

DEFAULT_PREFIX = "/coreos.com/network"
DEFAULT_ENDPOINTS = ("http://127.0.0.1:4001", "http://127.0.0.1:2379")


def config_key(prefix: str) -> str:
    """The key of the network's config, a net-conf.json."""
    return f"{prefix.rstrip('/')}/config"


@dataclass(frozen=True, slots=True)
class EtcdAccess:
    """One cluster and one identity. The files are read anew for each connection."""

    endpoints: tuple[str, ...] = DEFAULT_ENDPOINTS
    prefix: str = DEFAULT_PREFIX
    authority: Path | None = None
    """The CA; None: the system's."""
    certificate: Path | None = None
    key: Path | None = None
    username: str = ""
    password: str = ""

    def tls(self) -> ssl.SSLContext:
        """A context of the certificates as they are now."""
        return client_context(self.authority, self.certificate, self.key)
