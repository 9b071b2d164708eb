# SPDX-License-Identifier: Apache-2.0
"""The CNI error object: what a runtime is told, on stdout, when a call fails.

    Exception
    ├── CniError      the call fails; carries the specification's code
    └── AgentError    the agent can't be asked; whoever asked decides what that means
        └── AgentRefusedError   it was asked, and could not do it

Codes are the specification's (containernetworking/cni SPEC.md, section 5, "Error"). They are
plain numbers because `import enum` alone takes as long as the rest of a call.
Imports nothing.
"""

from __future__ import annotations

INCOMPATIBLE_VERSION = 1
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
UNDECODABLE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8
TRY_AGAIN_LATER = 11
UNAVAILABLE = 50
UNAVAILABLE_AND_LIMITED = 51
NOT_ATTACHED = 100
"""Our own, from CHECK: the interface is gone, or not accelerated and has to be."""
INTERNAL = 999


class CniError(Exception):
    """The call fails with `code`; `message` says what is wrong and the next step."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(message)

    def report(self, version: str) -> dict[str, object]:
        """The error object, in the `version` that the configuration asked for."""
        return {
            "cniVersion": version,
            "code": self.code,
            "msg": self.message,
            "details": self.details,
        }


class AgentError(Exception):
    """The agent did not do what it was asked; the message says why."""


class AgentRefusedError(AgentError):
    """The agent answered, with an error of its own."""
