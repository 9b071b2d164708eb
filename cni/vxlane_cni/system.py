# SPDX-License-Identifier: Apache-2.0
"""The few functions of os that a call needs, made of posix, the C module beneath it.

`import os` takes 2 ms, as long as all modules here together, because it imports the abstract
classes of collections. The executable starts Python with UTF-8 for names in every locale. Other
bytes pass through as surrogates (PEP 383), as in os. Imports no other module of vxlane.
"""

from __future__ import annotations

import posix


def environ() -> dict[str, str]:
    """The environment of this process."""
    return {decode(name): decode(value) for name, value in posix.environ.items()}


def encode(text: str) -> bytes:
    """A name as bytes for the kernel."""
    return text.encode("utf-8", "surrogateescape")


def decode(octets: bytes) -> str:
    """A name from the kernel's bytes."""
    return octets.decode("utf-8", "surrogateescape")


def is_same_file(one: str, other: str) -> bool:
    """Whether two paths lead to one file. OSError: one of them leads to none."""
    first, second = posix.stat(one), posix.stat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
