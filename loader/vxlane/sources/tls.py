# SPDX-License-Identifier: Apache-2.0
"""Makes TLS contexts for a client from PEM files or PEM text, which are read for each connection.

Certificates, keys and CAs of a cluster rotate under a running agent, so a context is made when a
connection is opened, and never kept.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from vxlane.errors import SourceError

Material = Path | bytes
"""A file, which is read when it is needed, or the content itself."""


def client_context(
    authority: Material | None, certificate: Material | None, key: Material | None
) -> ssl.SSLContext:
    """A context that trusts `authority` (None: the system's CAs). With `certificate` and `key` it
    authenticates this client. SourceError: they can't be used now.
    """
    data = None if authority is None else _certificates(authority)
    try:
        context = ssl.create_default_context(cadata=data)
        # Python 3.13 refuses by default what Go accepts: a CA without key identifiers, as
        # clusters of some years ago have.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if certificate is not None and key is not None:
            with _as_file(certificate) as certificate_file, _as_file(key) as key_file:
                context.load_cert_chain(certificate_file, key_file)
    except (OSError, ValueError) as error:
        named = [str(m) for m in (authority, certificate, key) if isinstance(m, Path)]
        where = ", ".join(named) or "certificates"
        raise SourceError(f"{where} can't be used: {error}; give proper PEM") from error
    return context


def _certificates(authority: Material) -> str:
    """PEM text; SourceError: there is none, for which OpenSSL would trust the system's CAs."""
    # Comments between certificates may be in any language, and Python takes ASCII alone.
    text = read(authority).decode("ascii", "ignore")
    if not text.strip():
        what = authority if isinstance(authority, Path) else "the CA"
        raise SourceError(f"{what} is empty; give the server's CA as PEM")
    return text


def read(material: Material) -> bytes:
    """The content of `material` now; SourceError names a file that can't be read."""
    if isinstance(material, bytes):
        return material
    try:
        return material.read_bytes()
    except OSError as error:
        raise SourceError(f"{material}: {error.strerror}; is it mounted?") from error


@contextlib.contextmanager
def _as_file(material: Material) -> Iterator[str]:
    """A path for OpenSSL, which reads keys from files only; text stays in memory."""
    if isinstance(material, Path):
        yield str(material)
        return
    with os.fdopen(os.memfd_create("pem"), "wb") as file:
        file.write(material)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
