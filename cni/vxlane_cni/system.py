# SPDX-License-Identifier: Apache-2.0
"""What os makes of posix, the module in C beneath it, as far as a call needs it.

`import os` takes 2 ms, as long as all modules here together: it brings in the abstract classes
of collections. The executable starts Python with UTF-8 for names, whatever the locale; what is
no UTF-8 passes through as surrogates (PEP 383), as it does in os. Imports nothing of vxlane.
"""

from __future__ import annotations

import posix


def environ() -> dict[str, str]:
    """The environment of this process."""
    return {decode(name): decode(value) for name, value in posix.environ.items()}


def encode(text: str) -> bytes:
    """A name as the kernel has it."""
    return text.encode("utf-8", "surrogateescape")


def decode(octets: bytes) -> str:
    """A name of the kernel's."""
    return octets.decode("utf-8", "surrogateescape")


def is_same_file(one: str, other: str) -> bool:
    """Whether two paths lead to one file; OSError when either leads nowhere."""
    first, second = posix.stat(one), posix.stat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
