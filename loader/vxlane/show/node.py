# SPDX-License-Identifier: Apache-2.0
"""This node as it can be looked at: the state directory, its pinned maps, the agent's socket.

Owns the sentences for what isn't there. Changes nothing, but for what the agent is asked to do.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.errors import KernelError, VxlaneError

_ANSWER_SECONDS = 10.0


def state_directory() -> Path:
    """$VXLANE_STATE_DIR, or /run/vxlane."""
    return Path(os.environ.get("VXLANE_STATE_DIR", "/run/vxlane"))


def open_maps(state: Path) -> Maps:
    """The maps that the programs of this node use now."""
    pins = pin_directory(state)
    try:
        return Maps.open(pins)
    except FileNotFoundError:
        raise VxlaneError(f"no programs are pinned in {pins}; start them: vxlane agent") from None


def call(state: Path, request: dict[str, Any]) -> dict[str, Any]:
    """One request to the agent, and its answer. VxlaneError: no agent, or it refused."""
    path = state / "agent.sock"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(connection.makefile("rb").readline())
    except (FileNotFoundError, ConnectionRefusedError):
        raise VxlaneError(f"no agent listens on {path}; start it: vxlane agent") from None
    except OSError as error:
        raise KernelError(f"ask the agent on {path}", error.errno or 0) from None
    except ValueError:
        raise VxlaneError(f"the agent on {path} ended in mid-answer; look at its log") from None
    if not answer.get("ok"):
        raise VxlaneError(f"the agent refused {request['op']}: {answer.get('error', 'no reason')}")
    return answer
