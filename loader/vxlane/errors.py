# SPDX-License-Identifier: Apache-2.0
"""Every error that vxlane raises on purpose; a message says what is wrong and the next step.

    VxlaneError
    ├── ConfigError      input that a person wrote: options, node files, JSON
    │   ├── OptionError  a word of the command line means nothing here
    │   └── VersionError a network's list has a version that the CNI plugin does not speak
    ├── KernelError      the kernel refused an operation; carries errno
    ├── ToolError        a program that vxlane runs (iptables, nft) failed; its own words
    │   └── ToolTimeoutError   it did not end in time, and was killed
    ├── CompileError     the eBPF sources do not compile or are refused by the verifier
    ├── ContractError    bpf/vxlane.h, or pinned objects that do not fit it
    ├── SourceError      a source of nodes can't be read now; the last good state stays
    └── LabError         the lab could not be made, or what ran in it failed

Imports nothing of vxlane, so that every layer can raise these.
"""

from __future__ import annotations

import os
import re

_UNNAMED = re.compile(r'in "<[a-z ]+>", ')


class VxlaneError(Exception):
    """Root of the tree; the command line prints it as one sentence and exits 1."""


class ConfigError(VxlaneError):
    """A person's input is wrong; nothing was changed."""


class OptionError(ConfigError):
    """A word of the command line is wrong: exit status 2, as for one that can't be parsed."""


class VersionError(ConfigError):
    """With the plugin in the network's list every pod would fail."""


class KernelError(VxlaneError):
    """The kernel refused `operation` with `errno`."""

    def __init__(self, operation: str, errno: int, advice: str = "") -> None:
        self.operation = operation
        self.errno = errno
        text = f"{operation}: {os.strerror(errno)}"
        super().__init__(f"{text}; {advice}" if advice else text)


class ToolError(VxlaneError):
    """A program that vxlane runs failed, or is not installed."""


class ToolTimeoutError(ToolError):
    """A program that vxlane runs did not end in time, so what it would have said is not known."""


class CompileError(VxlaneError):
    """The programs could not be compiled or loaded; the message holds the compiler's own words."""


class ContractError(VxlaneError):
    """User space and programs do not agree on a layout."""


class SourceError(VxlaneError):
    """A source of nodes can't be read; what it said last keeps serving."""


class LabError(VxlaneError):
    """The lab, or traffic in it, failed."""


def one_line(error: Exception) -> str:
    """What a library's error says, for a sentence of ours, which names the file.

    PyYAML's errors have several lines, and name what they read "<unicode string>" or "<file>".
    """
    return _UNNAMED.sub("at ", " ".join(str(error).split()))
