# SPDX-License-Identifier: Apache-2.0
"""The archive that a kernel starts from: busybox, the modules that a disk needs, and the job.

Written here, for what distributions make takes an emulated processor half a minute to unpack.
"""

from __future__ import annotations

import lzma
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
DISK_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
"""Some kernels have them built in, and newer ones no crc32c_generic."""
NET_MODULES = ("virtio_net",)


def archive(files: Mapping[str, bytes]) -> bytes:
    """Files by path, executable all, in the format `newc` of cpio (the kernel's
    Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    entries = [_entry("dev", stat.S_IFDIR | 0o755, b"")]
    entries.append(_entry("dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1)))
    folders = {str(parent) for name in files for parent in Path(name).parents} - {".", "dev"}
    entries += [_entry(name, stat.S_IFDIR | 0o755, b"") for name in sorted(folders)]
    entries += [_entry(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    entries.append(_entry("TRAILER!!!", 0, b""))
    return b"".join(entries)


def _entry(name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def modules(enter: list[str], root: Path, release: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """The modules of that kernel and what they need, and the order in which to load them."""
    found: dict[str, bytes] = {}
    for name in names:
        for file in _needed(enter, release, name):
            content = (root / file.lstrip("/")).read_bytes()
            short = Path(file).name
            if short.endswith(".xz"):
                short, content = short.removesuffix(".xz"), lzma.decompress(content)
            found.setdefault(short, content)
    order = "".join(f"{name}\n" for name in found)
    return {f"modules/{name}": content for name, content in found.items()} | {
        "modules/order": order.encode()
    }


def _needed(enter: list[str], release: str, name: str) -> Iterator[str]:
    command = [*enter, "modprobe", "--set-version", release, "--show-depends", name]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        word, *rest = line.split()
        if word == "insmod":
            yield rest[0]
