# SPDX-License-Identifier: Apache-2.0
"""The distributions of the matrix. Each runs its own kernel, bcc and tools."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Suite:
    """A release of a distribution, by the name that apt knows."""

    name: str
    title: str
    vendor: str
    components: str
    kernel: str
    """The package that depends on its newest kernel."""
    older: tuple[str, ...] = ()
    """Suites of the same vendor that have a kernel and no bcc that will do. Their kernels boot from
    this one's disk."""


def _debian(name: str, title: str, *older: str) -> Suite:
    return Suite(name, title, "Debian", "main", "linux-image-amd64", older)


def _ubuntu(name: str, title: str, *older: str) -> Suite:
    return Suite(name, title, "Ubuntu", "main,universe", "linux-image-generic", older)


KEYS = _debian("trixie", "Debian 13")
"""The first whose packages include the keys of Ubuntu's."""
SUITES = (
    _debian("bookworm", "Debian 12", "bullseye"),
    KEYS,
    _debian("sid", "Debian unstable"),
    _ubuntu("noble", "Ubuntu 24.04", "jammy"),
)
