# SPDX-License-Identifier: Apache-2.0
"""Whom a client trusts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from vxlane.errors import SourceError
from vxlane.sources.tls import client_context


def test_only_the_given_authority_is_trusted(pki: SimpleNamespace, tmp_path: Path) -> None:
    """Comments in any language may stand between its certificates."""
    bundle = tmp_path / "ca.crt"
    bundle.write_text("# Verbünde, 証明書\n" + pki.ca_crt.read_text(), encoding="utf-8")
    for authority in (pki.ca_crt, bundle, bundle.read_bytes()):
        assert len(client_context(authority, None, None).get_ca_certs()) == 1


@pytest.mark.parametrize("content", [b"", b"\n ", "証明書".encode(), b"not a certificate"])
def test_without_an_authority_nobody_is_trusted(content: bytes, tmp_path: Path) -> None:
    """For an empty file, as one is while it is written anew, OpenSSL would trust the system's."""
    file = tmp_path / "ca.crt"
    file.write_bytes(content)
    for authority in (file, content):
        with pytest.raises(SourceError, match="PEM"):
            client_context(authority, None, None)
