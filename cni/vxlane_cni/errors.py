# SPDX-License-Identifier: Apache-2.0
"""The CNI error object, which tells a runtime on stdout why a call failed.

    Exception
    ├── CniError      the call fails; carries the specification's code
    │   └── DelegateError       a delegate refused, in its own words
    └── AgentError    the agent does not answer; the caller decides what that means
        └── AgentRefusedError   it answered with an error

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
"""Our own code, of CHECK: the interface is gone, or it is not accelerated and must be."""
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


class DelegateError(CniError):
    """A delegate reported an error of its own. Nothing killed it, nor the IPAM that it called."""


class AgentError(Exception):
    """The agent did not carry out a request; the message says why."""


class AgentRefusedError(AgentError):
    """The agent answered, with an error of its own."""
