# SPDX-License-Identifier: Apache-2.0
"""Makes the text that bcc compiles from bpf/, and finds the kernel headers for it.

bcc needs one text: a map that is used in an included header loads as map 0, and a program there is
not found. So each local include is written out once, with #line, and a compiler error still names
the real file and line. Imports only the errors.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from pathlib import Path

from vxlane.errors import CompileError

_KHEADERS = Path("/sys/kernel/kheaders.tar.xz")
"""bcc would unpack it to a fixed name in /tmp, or take what anyone has put there."""
_OWN = "headers of the running kernel"
_UNPACKED = "kheaders of the running kernel"
_STAND_IN = "UAPI headers of the distribution"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-attributes")
"""Each is an error in a program of ours, and stands before a kernel's own flags."""
_OF_A_KERNEL = ("-Wno-everything", "-Werror=implicit-function-declaration")
"""A kernel's own headers have dozens of warnings with -Wextra. A function that is not declared is
an error still, for it becomes a call of -1."""
_COMPILED_BY = tuple(map(Path(__file__).with_name, ("compile.py", "compiled.py", "source.py")))
_INCLUDE = re.compile(r'#include "(\w+\.h)"')


class Part(Enum):
    """What is compiled as one text: files of bpf/, each with the program of its name."""

    PROGRAMS = ("from_pod.c", "to_pod.c", "from_nic.c", "to_nic.c")
    TRACER = ("trace.c",)

    @property
    def functions(self) -> list[str]:
        """The names of the programs."""
        return [name.removesuffix(".c") for name in self.value]


def flatten(part: Part = Part.PROGRAMS) -> str:
    """The part's files as one text, each local header at its first include."""
    seen: set[str] = set()
    return "".join(line for name in part.value for line in _lines(name, seen))


def digest(parts: Iterable[Part] = Part) -> str:
    """A hash of the parts' sources and of what compiles them: other flags make another program."""
    compiled_by = (path.read_text(encoding="utf-8") for path in _COMPILED_BY)
    return hashlib.sha256("".join([*map(flatten, parts), *compiled_by]).encode()).hexdigest()


def _lines(name: str, seen: set[str]) -> Iterator[str]:
    seen.add(name)
    text = resources.files("vxlane").joinpath("bpf").joinpath(name).read_text()
    yield f'#line 1 "bpf/{name}"\n'
    for number, line in enumerate(text.splitlines(), start=1):
        include = _INCLUDE.match(line)
        if not include:
            yield f"{line}\n"
        elif include[1] not in seen:
            yield from _lines(include[1], seen)
            yield f'#line {number + 1} "bpf/{name}"\n'
        else:
            yield "\n"


@dataclass(frozen=True, slots=True)
class KernelHeaders:
    """What bcc is to find. `kind` is for people."""

    kind: str
    path: Path | None = None
    """Where it shall look (BCC_KERNEL_SOURCE); None: its own search."""
    flags: tuple[str, ...] = ()
    """For the compiler."""


def headers_kind() -> str:
    """Which headers `kernel_headers` would find; CompileError: none."""
    if _has_own():
        return _OWN
    if _KHEADERS.exists():
        return _UNPACKED
    _uapi()
    return _STAND_IN


def kernel_headers(scratch: Path, *, is_portable: bool = False) -> KernelHeaders:
    """The running kernel's own headers, else kheaders, else a stand-in made in `scratch`.

    The programs use UAPI types only, so the stand-in, made of the distribution's UAPI headers, is
    as good as the others. With `is_portable` it is taken whatever else is here. Raises CompileError
    where not even those are installed.
    """
    if is_portable:
        return _stand_in(scratch)
    if _has_own():
        return KernelHeaders(_OWN, flags=_OF_A_KERNEL)
    if _KHEADERS.exists():
        with tarfile.open(_KHEADERS) as archive:
            archive.extractall(scratch)  # noqa: S202 (the kernel's own file)
        return KernelHeaders(_UNPACKED, scratch, _OF_A_KERNEL)
    return _stand_in(scratch)


def _has_own() -> bool:
    modules = Path("/lib/modules") / os.uname().release
    return any((modules / name / "include").is_dir() for name in ("build", "source"))


def _uapi() -> tuple[Path, Path]:
    """The distribution's UAPI headers, and where among them those of this machine are."""
    uapi = Path("/usr/include")
    arch = uapi / f"{platform.machine()}-linux-gnu" / "asm"
    asm = arch if arch.is_dir() else uapi / "asm"
    if not (uapi / "linux" / "pkt_cls.h").exists() or not asm.is_dir():
        msg = "no kernel headers; install linux-libc-dev, or the running kernel's header package"
        raise CompileError(msg)
    return uapi, asm


def _stand_in(scratch: Path) -> KernelHeaders:
    """What only a kernel's source has, before the UAPI headers where they are: copies of these took
    longer than the compiler.
    """
    uapi, asm = _uapi()
    for name, text in _KERNEL_ONLY.items():
        header = scratch / "include" / name
        header.parent.mkdir(parents=True, exist_ok=True)
        header.write_text(text)
    links = {
        "asm": asm,
        "asm-generic": uapi / "asm-generic",
        "linux": uapi / "linux",
        "uapi": uapi,
    }
    for name, target in links.items():
        (scratch / name).symlink_to(target)
    flags = ("-idirafter", str(scratch))
    return KernelHeaders(_STAND_IN, scratch, flags)


# What bcc's own preamble includes beyond the UAPI; it brings its own uapi/linux/bpf.h.
_KERNEL_ONLY = {
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "linux/log2.h": "",
    "linux/compiler_types.h": "",
    "asm/page.h": "#define PAGE_SIZE 4096\n",
    "uapi/linux/bpf.h": "",
    "linux/types.h": """
#include_next <linux/types.h>
#ifndef VXLANE_KERNEL_TYPES
#define VXLANE_KERNEL_TYPES
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
#endif
""",
}
