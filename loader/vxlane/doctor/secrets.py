# SPDX-License-Identifier: Apache-2.0
"""Takes secrets out of text that is to leave the node. Pure.

What a secret looks like is known by its name (password=...), or by its form (a private key, a
token). It is the second line of defence: files that hold nothing but secrets are not read at all.
"""

from __future__ import annotations

import re

LEFT_OUT = "(left out)"

_NAME = (
    r"[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|credential|api[-_]?key|private[-_]?key"
    r"|access[-_]?key|auth[-_]?key|client[-_]?key[-_]?data|psk)[\w.-]*"
)
_VALUE = r"""(?:(?P<quote>")(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;}]+)"""

_FORMS = (
    # A private key, whole or cut short.
    re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    # JSON Web Tokens, as Kubernetes' service accounts have; bootstrap tokens of kubeadm and k3s.
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"),
    re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b"),
    re.compile(r"\bK10[0-9a-f]{16,}\S*"),
)
_NAMED = (
    re.compile(r"(?P<kept>\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}", re.IGNORECASE),
    re.compile(r"(?P<kept>://)[^/\s@]+@"),
    re.compile(rf"""(?P<kept>\b{_NAME}["']?\s*[:=]\s*){_VALUE}""", re.IGNORECASE),
    re.compile(rf"(?P<kept>--?{_NAME}\s+){_VALUE}", re.IGNORECASE),
)


def without_secrets(text: str) -> str:
    """`text` with "(left out)" in the place of each secret."""
    for form in _FORMS:
        text = form.sub(LEFT_OUT, text)
    for named in _NAMED:
        text = named.sub(_replaced, text)
    return text


def _replaced(found: re.Match[str]) -> str:
    """The name with a note for a value, quoted as the value was: JSON stays JSON."""
    quote = found.groupdict().get("quote") or ""
    return f"{found['kept']}{quote}{LEFT_OUT}{quote}"
